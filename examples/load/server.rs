//! The programs that are measured, as child processes: this project's server and the ceiling.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// How long a server may take until it listens, in seconds: the first one may have to download a MongoDB.
const START_SECS_MAX: u64 = 180;
/// How long it may take to stop before it is killed, in seconds.
const STOP_SECS_MAX: u64 = 15;

/// A program that was started here, with its files. Both go with it.
pub struct Program {
    pub url: String,
    pub pid: u32,
    /// Of a server with a MongoDB.
    pub mongodb_uri: Option<String>,
    /// What it calls itself.
    pub version: String,
    child: Child,
    // After the child: the files may go only when the process has.
    _files: TempDir,
}

/// Builds this project's server and the ceiling as they are measured, and says in which directory they lie.
pub fn build() -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()?;
    let profile = here.parent().and_then(Path::parent).context("this program lies in target/PROFILE/examples")?;
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo.args(["build", "--bin", "corriente", "--example", "ceiling"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    // `cargo run` describes this package to us. A build script that looks at that would see a change, and half of the
    // dependencies would be built anew each time.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
    if profile.ends_with("release") {
        cargo.arg("--release");
    } else {
        eprintln!("This is not a release build, so its numbers mean little; use cargo run --release --example load");
    }
    ensure!(cargo.status().context("cargo does not start")?.success(), "the server does not build");
    Ok(profile.to_owned())
}

impl Program {
    /// Starts this project's server: on `mongodb_uri`, else on a MongoDB of its own with temporary files.
    pub async fn corriente(profile: &Path, mongodb_uri: Option<&str>, args: &[String]) -> anyhow::Result<Self> {
        let files = tempfile::tempdir()?;
        let mut command = Command::new(profile.join("corriente"));
        command.args(["--port", "0", "--drain-secs", "0", "--data-dir"]).arg(files.path().join("data")).args(args);
        // What is measured is the server, and all load comes from one address.
        for limit in ["--rate-per-address", "--rate-per-sender", "--rate-requests-per-address"] {
            if !args.iter().any(|arg| arg.starts_with(limit)) {
                command.args([limit, "0"]);
            }
        }
        match mongodb_uri {
            Some(uri) => command.env("MONGODB_URI", uri),
            None => command.env_remove("MONGODB_URI"),
        };
        Self::start(command, files).await
    }

    /// Starts the ceiling.
    pub async fn ceiling(profile: &Path, content_bytes: usize) -> anyhow::Result<Self> {
        let files = tempfile::tempdir()?;
        let mut command = Command::new(profile.join("examples").join("ceiling"));
        command.args(["--port", "0", "--content-bytes", &content_bytes.to_string()]);
        Self::start(command, files).await
    }

    async fn start(mut command: Command, files: TempDir) -> anyhow::Result<Self> {
        let program = command.as_std().get_program().to_owned();
        let name = program.display();
        let version = Command::new(&program).arg("--version").output().await;
        let version = version.with_context(|| format!("{name} does not start"))?;
        let log_path = files.path().join("log");
        let log = std::fs::File::create(&log_path)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("{name} does not start"))?;
        let pid = child.id().context("it has ended already")?;
        let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        let mut mongodb_uri = None;
        let url = async {
            while let Some(line) = lines.next_line().await? {
                if let Some(uri) = line.strip_prefix("mongodb: ") {
                    mongodb_uri = Some(uri.to_owned());
                } else if let Some(url) = line.strip_prefix("listening on ") {
                    return Ok(url.to_owned());
                }
            }
            let told = std::fs::read_to_string(&log_path).unwrap_or_default();
            let last: Vec<&str> = told.lines().rev().take(5).collect();
            bail!("{name} ended before it listened:\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"))
        };
        let url = timeout(Duration::from_secs(START_SECS_MAX), url).await;
        let url = url.with_context(|| format!("{name} does not listen after {START_SECS_MAX} s"))??;
        let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
        Ok(Self { url, pid, mongodb_uri, version, child, _files: files })
    }

    /// Stops it, as an operator does; kills it when that takes too long.
    pub async fn stop(mut self) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            // One that has ended already can not be told to.
            let _ = kill_process(pid, Signal::TERM);
        }
        if timeout(Duration::from_secs(STOP_SECS_MAX), self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}
