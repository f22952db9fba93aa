//! What a mongod's log says about its end. mongod writes one JSON object per line; complaints about
//! its command line come as plain text.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use serde_json::Value;

/// More than the end of a log ever needs; a bound, because a log may be large.
const TAIL_BYTES_MAX: u64 = 256 << 10;
const LINES_MAX: usize = 3;

/// Opens a fresh log and keeps one older one beside it, so that the two together stay bounded by
/// two runs.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    match std::fs::rename(path, path.with_extension("previous.log")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Appending, so that standard output and standard error can share the file.
    File::options().create(true).append(true).open(path)
}

/// Why a mongod ended, as far as its log tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Something else listens on the port.
    PortTaken,
    /// Another mongod has the files open.
    FilesInUse,
    /// The files belong to another version of MongoDB.
    Incompatible(String),
    /// Anything else: the last meaningful lines.
    Other(String),
}

/// Reads the end of the log at `path`.
pub(crate) fn reason(path: &Path) -> Reason {
    match tail(path) {
        Ok(text) => reason_in(&text),
        Err(error) => Reason::Other(format!("its log cannot be read ({error})")),
    }
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn reason_in(text: &str) -> Reason {
    let mut plain = Vec::new();
    let mut severe = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let Ok(entry) = serde_json::from_str::<Value>(line) else {
            plain.push(line.to_owned());
            continue;
        };
        let said = sentence(&entry);
        if said.contains("Address already in use") {
            return Reason::PortTaken;
        }
        if said.contains("DBPathInUse") {
            return Reason::FilesInUse;
        }
        // "UPGRADE PROBLEM", "wrong mongod version" and "featureCompatibilityVersion" come from
        // the server, the last two from its storage engine, when it meets files of a newer version.
        let signs = [
            "UPGRADE PROBLEM",
            "rong mongod version",
            "Invalid featureCompatibilityVersion",
            "under any compatibility version",
            "unsupported WiredTiger file version",
        ];
        if matches!(entry["s"].as_str(), Some("F" | "E" | "W")) && signs.iter().any(|sign| said.contains(sign)) {
            return Reason::Incompatible(said);
        }
        // A fatal assertion is followed by a back trace and "aborting", which help nobody.
        if matches!(entry["s"].as_str(), Some("F" | "E")) && !said.contains("aborting after") && !severe.contains(&said)
        {
            severe.push(said);
        }
    }
    let lines = if severe.is_empty() { plain } else { severe };
    let last = lines.iter().skip(lines.len().saturating_sub(LINES_MAX)).cloned().collect::<Vec<_>>().join(" / ");
    Reason::Other(if last.is_empty() { "it wrote no reason".to_owned() } else { last })
}

/// The message of a log entry with its error, without braces.
fn sentence(entry: &Value) -> String {
    let message = entry["msg"].as_str().unwrap_or_default();
    let attributes = &entry["attr"];
    let detail = [&attributes["error"]["errmsg"], &attributes["error"], &attributes["message"], &attributes["reason"]]
        .into_iter()
        .find_map(Value::as_str);
    match detail {
        Some(detail) => format!("{message}: {}", detail.trim()),
        None if attributes.is_object() => format!("{message} {attributes}"),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_recognised() {
        let log = r#"{"s":"E","msg":"Error setting up listener","attr":{"error":{"code":9001,"codeName":"SocketException","errmsg":"Address already in use"}}}"#;
        assert_eq!(reason_in(log), Reason::PortTaken);
    }

    #[test]
    fn files_in_use_are_recognised() {
        let log = r#"{"s":"E","msg":"DBException in initAndListen, terminating","attr":{"error":"DBPathInUse: Unable to lock the lock file"}}"#;
        assert_eq!(reason_in(log), Reason::FilesInUse);
    }

    #[test]
    fn files_of_a_newer_version_are_recognised() {
        let log = r#"{"s":"F","msg":"Wrong mongod version","attr":{"error":"UPGRADE PROBLEM: Found an invalid featureCompatibilityVersion document"}}"#;
        let why = "Wrong mongod version: UPGRADE PROBLEM: Found an invalid featureCompatibilityVersion document";
        assert_eq!(reason_in(log), Reason::Incompatible(why.to_owned()));
        let log = r#"{"s":"E","msg":"WiredTiger error","attr":{"error":45,"message":"unsupported WiredTiger file version: this build only supports up to 10.0"}}"#;
        assert!(matches!(reason_in(log), Reason::Incompatible(_)));
    }

    #[test]
    fn the_last_severe_lines_are_shown_without_their_json() {
        let log = "{\"s\":\"I\",\"msg\":\"hello\"}\n{\"s\":\"E\",\"msg\":\"Ending\",\"attr\":{\"error\":\"NonExistentPath: gone\"}}\n{\"s\":\"I\",\"msg\":\"bye\"}";
        assert_eq!(reason_in(log), Reason::Other("Ending: NonExistentPath: gone".to_owned()));
    }

    #[test]
    fn a_complaint_about_the_command_line_is_plain_text() {
        let log = "Error parsing command line: unrecognised option '--foo'\ntry 'mongod --help' for more information";
        assert_eq!(
            reason_in(log),
            Reason::Other(
                "Error parsing command line: unrecognised option '--foo' / try 'mongod --help' for more information"
                    .to_owned()
            )
        );
    }
}
