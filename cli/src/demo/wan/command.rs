//! Commands to the relay, as text.

use std::fmt;

/// What is cut of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// UDP and TCP.
    All,
    /// Nothing.
    Nothing,
    /// UDP only.
    Udp,
}

/// Sets what is cut of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    /// The path's name.
    pub(crate) path: String,
    /// What is cut from now on.
    pub(crate) cut: Cut,
}

impl Command {
    /// Reads a line.
    pub(crate) fn parse(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (path, cut) = match words.as_slice() {
            ["cut", path, "all"] => (path, Cut::All),
            ["cut", path, "udp"] => (path, Cut::Udp),
            ["restore", path, "all" | "udp"] => (path, Cut::Nothing),
            _ => return Err("want `cut <path> udp|all` or `restore <path> udp|all`".to_owned()),
        };
        Ok(Self { path: (*path).to_owned(), cut })
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cut {
            Cut::All => write!(f, "cut {} all", self.path),
            Cut::Nothing => write!(f, "restore {} all", self.path),
            Cut::Udp => write!(f, "cut {} udp", self.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_read_as_it_is_written() {
        for cut in [Cut::All, Cut::Nothing, Cut::Udp] {
            let command = Command { path: "aws-gcp".to_owned(), cut };
            assert_eq!(Command::parse(&command.to_string()).unwrap(), command);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for line in ["", "cut", "cut a", "cut a tcp", "cut a udp now", "stop a udp"] {
            assert!(Command::parse(line).is_err(), "{line}");
        }
    }
}
