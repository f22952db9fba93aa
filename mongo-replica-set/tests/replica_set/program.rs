//! The command as a user runs it, and processes as the system sees them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::SOON;

/// What a program or a set told its user.
#[derive(Clone, Default)]
pub(crate) struct Said(Arc<Mutex<String>>);

impl Said {
    pub(crate) fn listener(&self) -> impl Fn(&str) + Send + Sync + use<> {
        let said = self.clone();
        move |line| said.0.lock().unwrap().extend([line, "\n"])
    }

    pub(crate) fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

/// The command, running. Dropping it kills it.
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) uri: String,
    pub(crate) said: Said,
}

impl Program {
    pub(crate) async fn start(args: &[&str]) -> Program {
        Program::start_with(args, |_| {}).await
    }

    pub(crate) async fn start_with(args: &[&str], change: impl FnOnce(&mut Command)) -> Program {
        let mut command = command();
        change(command.args(args));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Said::default();
        let (listener, stderr) = (said.listener(), BufReader::new(child.stderr.take().unwrap()));
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(|line| listener(&line)));
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut program = Program { child, uri: String::new(), said };
        let first = tokio::task::spawn_blocking(move || stdout.lines().next().and_then(Result::ok));
        let first = tokio::time::timeout(Duration::from_secs(120), first).await.expect("a started program").unwrap();
        let first = first.unwrap_or_else(|| panic!("the program ended: {}", program.said.text()));
        program.uri = first.strip_prefix("mongodb: ").expect("the URI").to_owned();
        program
    }

    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        signal(self.child.id(), "TERM");
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < SOON, "the program does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_mongo-replica-set"))
}

/// Runs the command, which must fail with exit code 1, and gives what it said.
pub(crate) fn fails(change: impl FnOnce(&mut Command)) -> String {
    let mut command = command();
    change(&mut command);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let errors = said.lines().filter(|line| line.starts_with("mongo-replica-set: ")).count();
    assert_eq!(errors, 1, "one sentence: {said}");
    said
}

pub(crate) fn mongod_of(dir: &Path) -> u32 {
    fs::read_to_string(dir.join("member-0/mongod.lock")).unwrap().trim().parse().unwrap()
}

pub(crate) fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap().success());
}

/// A zombie counts as dead: only its parent, or whoever inherits it, can remove it.
pub(crate) fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z" && fields[0] != "X")
}

pub(crate) fn process_group(pid: u32) -> u32 {
    stat(pid).unwrap()[2].parse().unwrap()
}

/// State, parent, group and so on: what follows the name, which may contain blanks.
pub(crate) fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(PathBuf::from(format!("/proc/{pid}/stat"))).ok()?;
    Some(text.rsplit(')').next()?.split_whitespace().map(str::to_owned).collect())
}
