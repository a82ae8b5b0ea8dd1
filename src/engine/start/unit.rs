//! The command line in a service unit and its drop-ins (systemd.unit(5), systemd.service(5), systemd.exec(5)).

use super::words::{self, Backslash, Variables};

/// What a unit says of how its program is started, after all its drop-ins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// `ExecStart=`, each as written. systemd refuses more than one unless the unit is of type oneshot.
    pub exec_start: Vec<String>,
    /// `Environment=`, in order.
    pub environment: Variables,
    /// `EnvironmentFile=`, in order.
    pub environment_files: Vec<EnvironmentFile>,
}

/// A file of variables that a unit names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentFile {
    /// Its path.
    pub path: String,
    /// Whether the unit is started without it when it is missing (`-` before the path).
    pub optional: bool,
}

impl Unit {
    /// Reads the text of a unit or a drop-in over what was read before. An empty value takes back all that was given
    /// before it.
    pub fn read(&mut self, text: &str) {
        let mut section = String::new();
        for line in logical_lines(text) {
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                name.clone_into(&mut section);
                continue;
            }
            let Some((key, value)) = line.split_once('=').filter(|_| section == "Service") else { continue };
            self.take(key.trim_end(), value.trim());
        }
    }

    fn take(&mut self, key: &str, value: &str) {
        match (key, value) {
            ("ExecStart", "") => self.exec_start.clear(),
            ("ExecStart", command) => self.exec_start.push(command.to_owned()),
            ("Environment", "") => self.environment.clear(),
            ("Environment", assignments) => {
                for word in words::split(assignments, Backslash::C) {
                    if let Some((name, value)) = word.split_once('=').filter(|(name, _)| words::is_name(name)) {
                        self.environment.insert(name.to_owned(), value.replace("%%", "%"));
                    }
                }
            }
            ("EnvironmentFile", "") => self.environment_files.clear(),
            ("EnvironmentFile", path) => {
                let (path, optional) = path.strip_prefix('-').map_or((path, false), |path| (path, true));
                self.environment_files.push(EnvironmentFile { path: path.replace("%%", "%"), optional });
            }
            _ => {}
        }
    }

    /// Returns the words with which the program is started, given all variables; nothing when the unit has no
    /// `ExecStart=`, or several.
    pub fn command(&self, variables: &Variables) -> Option<Vec<String>> {
        let [command] = self.exec_start.as_slice() else { return None };
        // `@` gives the program another name, `-` forgives its failure, `:` leaves variables alone, the rest is of rights.
        let rest = command.trim_start_matches(['@', '-', ':', '+', '!', '|']);
        let prefixes = command.get(..command.len() - rest.len()).unwrap_or_default();
        let written: Vec<String> =
            words::split(rest, Backslash::C).into_iter().map(|word| word.replace("%%", "%")).collect();
        let mut line = if prefixes.contains(':') { written } else { words::expand(&written, variables) };
        if prefixes.contains('@') && line.len() > 1 {
            line.remove(1);
        }
        Some(of_shell(&line, variables).unwrap_or(line))
    }
}

/// Returns the first command of a `sh -c '…'`, up to where its output goes: so units of Docker 1.10 sent its log to
/// the journal. Nothing when it is no such line.
fn of_shell(line: &[String], variables: &Variables) -> Option<Vec<String>> {
    let [shell, flag, script, ..] = line else { return None };
    let shell = shell.rsplit('/').next()?;
    if !matches!(shell, "sh" | "bash" | "dash") || !flag.starts_with('-') || !flag.ends_with('c') {
        return None;
    }
    let ends = |word: &&String| matches!(word.as_str(), "|" | ";" | "&&" | "||") || word.contains('>');
    let script = words::split(&words::expand_shell(script, variables), Backslash::Plain);
    let command = script.iter().take_while(|word| !ends(word));
    Some(command.skip_while(|word| *word == "exec").cloned().collect())
}

/// Returns the lines of a unit file without comments, those that end with a backslash joined with the next one.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        let begun = line.trim();
        if begun.starts_with(['#', ';']) {
            // A comment between the pieces of a joined line is passed over.
            continue;
        }
        let mut whole = open.take().unwrap_or_default();
        match begun.strip_suffix('\\') {
            Some(piece) => {
                whole.push_str(piece);
                whole.push(' ');
                open = Some(whole);
            }
            None => {
                whole.push_str(begun);
                lines.push(whole.trim().to_owned());
            }
        }
    }
    lines.extend(open.map(|line| line.trim().to_owned()));
    lines.retain(|line| !line.is_empty());
    lines
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unit(texts: &[&str]) -> Unit {
        let mut unit = Unit::default();
        for text in texts {
            unit.read(text);
        }
        unit
    }

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_unit_of_centos_7() {
        let text = "[Unit]\nDescription=Docker = x\n[Service]\nType=notify\nEnvironmentFile=-/etc/sysconfig/docker\n\
                    EnvironmentFile=/etc/sysconfig/docker-storage\nEnvironment=GOTRACEBACK=crash \"A=b c\"\n\
                    ExecStart=/usr/bin/dockerd-current \\\n          --exec-opt native.cgroupdriver=systemd \\\n\
                    # a comment between\n          $OPTIONS \\\n          $DOCKER_STORAGE_OPTIONS \\\n          $NONE\n\
                    ExecReload=/bin/kill -s HUP $MAINPID\n[Install]\nExecStart=/not/this\n";
        let unit = unit(&[text]);
        let given =
            variables(&[("OPTIONS", "--selinux-enabled"), ("DOCKER_STORAGE_OPTIONS", "--storage-opt dm.fs=xfs")]);
        assert_eq!(
            unit.command(&given).unwrap(),
            [
                "/usr/bin/dockerd-current",
                "--exec-opt",
                "native.cgroupdriver=systemd",
                "--selinux-enabled",
                "--storage-opt",
                "dm.fs=xfs"
            ]
        );
        assert_eq!(unit.environment, variables(&[("GOTRACEBACK", "crash"), ("A", "b c")]));
        let files: Vec<_> = unit.environment_files.iter().map(|file| (file.path.as_str(), file.optional)).collect();
        assert_eq!(files, [("/etc/sysconfig/docker", true), ("/etc/sysconfig/docker-storage", false)]);
    }

    #[test]
    fn a_drop_in_takes_back_what_was_given() {
        let debian = "[Service]\nExecStart=/usr/sbin/dockerd -H fd:// $DOCKER_OPTS\n";
        let reset = "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd --data-root /srv/d\n";
        assert_eq!(
            unit(&[debian, reset]).command(&Variables::new()).unwrap(),
            ["/usr/sbin/dockerd", "--data-root", "/srv/d"]
        );
        // Forgotten: systemd refuses such a unit.
        let twice = unit(&[debian, "[Service]\nExecStart=/usr/sbin/dockerd\n"]);
        assert_eq!((twice.exec_start.len(), twice.command(&Variables::new())), (2, None));
        assert_eq!(unit(&["[Service]\n"]).command(&Variables::new()), None);
    }

    #[test]
    fn marks_before_the_program_and_a_shell_around_it() {
        let line =
            |text: &str| unit(&[&format!("[Service]\nExecStart={text}")]).command(&variables(&[("O", "-g /srv")]));
        assert_eq!(line("-/usr/bin/dockerd $O").unwrap(), ["/usr/bin/dockerd", "-g", "/srv"]);
        assert_eq!(line("@/usr/bin/dockerd docker $O").unwrap(), ["/usr/bin/dockerd", "-g", "/srv"]);
        assert_eq!(line(":/usr/bin/dockerd $O").unwrap(), ["/usr/bin/dockerd", "$O"]);
        let old = "/bin/sh -c 'exec /usr/bin/docker-current daemon $O 2>&1 | /usr/bin/forward-journald -tag docker'";
        assert_eq!(line(old).unwrap(), ["/usr/bin/docker-current", "daemon", "-g", "/srv"]);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(\\[Service\\]|ExecStart=|Environment=|[\\PC\\\\\"'$=#; \n]){0,20}") {
            let _ = unit(&[&text, "[Service]\nExecStart=", &text]).command(&Variables::new());
        }
    }
}
