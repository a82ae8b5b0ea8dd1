//! What the bench found: a table for people, JSON for programs.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the output of a program")]

use serde::Serialize;

use crate::ratios::Ratio;

/// Whether a goal was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Met,
    NotMet,
}

impl Verdict {
    pub(crate) fn of(met: bool) -> Self {
        if met { Self::Met } else { Self::NotMet }
    }

    pub(crate) fn at_most(value: f64, limit: f64) -> Self {
        Self::of(value <= limit)
    }
}

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<Ratio>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    goal: Option<(Verdict, &'static str)>,
}

impl Line {
    /// A ratio with its spread.
    pub(crate) fn ratio(what: impl Into<String>, ratio: Ratio) -> Self {
        Self { what: what.into(), ratio: Some(ratio), value: None, unit: "x", goal: None }
    }

    /// A single number.
    pub(crate) fn number(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { what: what.into(), ratio: None, value: Some(value), unit, goal: None }
    }

    /// With the goal it was measured for.
    pub(crate) fn goal(self, verdict: Verdict, goal: &'static str) -> Self {
        Self { goal: Some((verdict, goal)), ..self }
    }

    fn text(&self) -> String {
        let (value, spread) = match (&self.ratio, self.value) {
            (Some(r), _) => (format!("{:.2}x", r.median), format!("{:.2}..{:.2} of {}", r.min, r.max, r.pairs)),
            (None, Some(value)) if value.fract() == 0.0 => (format!("{value:.0}{}", self.unit), String::new()),
            (None, Some(value)) => (format!("{value:.2}{}", self.unit), String::new()),
            (None, None) => (String::new(), String::new()),
        };
        let goal = match self.goal {
            Some((Verdict::Met, goal)) => format!("met      ({goal})"),
            Some((Verdict::NotMet, goal)) => format!("NOT MET  ({goal})"),
            None => String::new(),
        };
        format!("{:<52} {value:>9}  {spread:<20} {goal}", self.what).trim_end().to_owned()
    }
}

/// Everything that one run measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    lines: Vec<Line>,
    notes: Vec<String>,
}

impl Report {
    pub(crate) fn add(&mut self, line: Line) {
        self.progress(&line.text());
        self.lines.push(line);
    }

    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Tells who watches that it goes on; standard output is for the result.
    #[allow(clippy::unused_self, reason = "one place for what is shown")]
    pub(crate) fn progress(&self, text: &str) {
        eprintln!(".. {text}");
    }

    /// Whether every goal was met.
    pub(crate) fn all_met(&self) -> bool {
        self.lines.iter().all(|line| !matches!(line.goal, Some((Verdict::NotMet, _))))
    }

    /// Prints the table, or all of it as JSON.
    pub(crate) fn print(&self, json: bool) {
        if json {
            println!("{}", serde_json::to_string_pretty(self).unwrap_or_default());
            return;
        }
        println!("{:<52} {:>9}  {:<20} goal", "measured side by side in this run", "median", "spread");
        for line in &self.lines {
            println!("{}", line.text());
        }
        for note in &self.notes {
            println!("- {note}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_ratio_spread_and_verdict() {
        let ratio = Ratio { pairs: 9, median: 1.25, min: 1.0, max: 2.5 };
        let line = Line::ratio("a / b", ratio).goal(Verdict::at_most(1.25, 1.2), "at most 1.2");
        let words: Vec<_> = line.text().split_whitespace().map(str::to_owned).collect();
        assert_eq!(words.join(" "), "a / b 1.25x 1.00..2.50 of 9 NOT MET (at most 1.2)");
        let mut report = Report::default();
        report.add(Line::number("n", 3.0, ""));
        assert!(report.all_met());
        report.add(line);
        assert!(!report.all_met());
    }
}
