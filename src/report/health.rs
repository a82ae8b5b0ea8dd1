//! Findings as text.

use super::failure::printable;
use crate::pool::{Finding, finding};

/// Returns the verdict in one line: `OK`, or `CRITICAL: it is full`.
pub fn verdict(findings: &[Finding]) -> String {
    finding::verdict(findings).map_or_else(|| "OK".to_owned(), line)
}

/// Returns all findings, each line ended: the verdict first, and under each the ways out, the best first, with what
/// they cost.
pub fn findings(findings: &[Finding]) -> String {
    let mut text = String::new();
    if finding::verdict(findings).is_none() {
        text.push_str("OK\n");
    }
    for finding in findings {
        text.push_str(&format!("{}\n", line(finding)));
        for (number, way) in finding.ways.iter().enumerate() {
            let label = if number == 0 { "next:" } else { "or:  " };
            text.push_str(&format!("  {label} {}    ({})\n", printable(&way.command), printable(&way.cost)));
        }
    }
    text
}

fn line(finding: &Finding) -> String {
    format!("{}: {}", finding.severity.word(), printable(&finding.sentence).replace('\n', " "))
}
