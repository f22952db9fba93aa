//! The servers: real programs with addresses that stay, which are killed, stopped and started again.

use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::Mutex,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::memory::resident_kib;

/// How long a start may take, in seconds: MongoDB may be away, and a server without it gives up and is started again.
const START_SECS_MAX: u64 = 90;
/// How long a server may take to stop when it is told to, in seconds: this is promised.
const STOP_SECS_MAX: u64 = 10;

/// A log that is full within the first minute: what falls out of it is a part of what is to be tried, and from then on
/// memory must be flat.
const LOG_ENTRIES_MAX: usize = 5_000;

/// All clients have one address, and write faster than people.
const WITHOUT_RATES: [&str; 6] =
    ["--rate-per-address", "0", "--rate-per-sender", "0", "--rate-requests-per-address", "0"];

/// One server.
pub struct Program {
    pub url: String,
    binary: PathBuf,
    args: Vec<String>,
    log: PathBuf,
    life: Mutex<Life>,
}

#[derive(Default)]
struct Life {
    child: Option<Child>,
    peak_kib: u64,
}

/// Builds the server in the profile of this example, and says where it is. The example is named besides, as it is built
/// with more features of what both use: alone, the server would have all of that built a second time.
pub fn build() -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()?;
    let profile = here.parent().and_then(Path::parent).context("the example lies in target/PROFILE/examples")?;
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo
        .args(["build", "--quiet", "--bin", "corriente", "--example", "nemesis"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    // What `cargo run` says of the package makes some build scripts run again, and everything above them be built anew.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            cargo.env_remove(name);
        }
    }
    ensure!(cargo.status()?.success(), "the server does not build");
    Ok(profile.join("corriente"))
}

impl Program {
    /// Starts a server on `port`.
    pub async fn start(binary: &Path, uri: &str, port: u16, log: PathBuf) -> anyhow::Result<Self> {
        let (port_text, entries_max) = (port.to_string(), LOG_ENTRIES_MAX.to_string());
        let args = ["--mongodb-uri", uri, "--port", &port_text, "--log-entries-max", &entries_max];
        let args = args.into_iter().chain(WITHOUT_RATES).map(str::to_owned).collect();
        let url = format!("http://127.0.0.1:{port}");
        let program = Self { url, binary: binary.to_owned(), args, log, life: Mutex::default() };
        program.restart().await?;
        Ok(program)
    }

    /// Starts it, as a supervisor does: again and again until it listens. Does nothing while it runs: two faults at once
    /// may have ended the same server, and each starts it again.
    pub async fn restart(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(START_SECS_MAX);
        let mut life = self.life.lock().await;
        if let Some(child) = &mut life.child
            && child.try_wait()?.is_none()
        {
            return Ok(());
        }
        loop {
            life.note_peak();
            let log: File = OpenOptions::new().create(true).append(true).open(&self.log)?;
            let child = Command::new(&self.binary)
                .args(&self.args)
                .env("RUST_LOG", "info")
                .stdout(Stdio::piped())
                .stderr(log)
                .kill_on_drop(true)
                .spawn();
            let mut child = child.with_context(|| format!("{} does not start", self.binary.display()))?;
            let mut lines = BufReader::new(child.stdout.take().context("its stdout")?).lines();
            while let Ok(line) = timeout_at(deadline, lines.next_line()).await {
                let Some(line) = line? else { break };
                if line.starts_with("listening on ") {
                    life.child = Some(child);
                    return Ok(());
                }
            }
            if Instant::now() > deadline {
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                let last = said.lines().next_back().unwrap_or("nothing");
                bail!("{} has not come up within {START_SECS_MAX} s; the last that it said: {last}", self.url);
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// SIGKILL.
    pub async fn kill(&self) {
        let mut life = self.life.lock().await;
        life.note_peak();
        if let Some(mut child) = life.child.take() {
            let _ = child.kill().await;
        }
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&self) -> anyhow::Result<()> {
        let mut life = self.life.lock().await;
        life.note_peak();
        let Some(mut child) = life.child.take() else {
            return Ok(());
        };
        let pid = child.id().context("it has ended by itself")?.to_string();
        ensure!(Command::new("kill").args(["-TERM", &pid]).status().await?.success(), "it can not be told to stop");
        let Ok(ended) = timeout(Duration::from_secs(STOP_SECS_MAX), child.wait()).await else {
            bail!("{} has not stopped within {STOP_SECS_MAX} s", self.url);
        };
        let status = ended?;
        ensure!(status.success(), "{} ended with {status}", self.url);
        Ok(())
    }

    /// Its process; `None` when there is none, and while one is being started or ended.
    pub fn pid_now(&self) -> Option<u32> {
        self.life.try_lock().ok()?.child.as_ref()?.id()
    }

    /// The most memory that it had, over all its lives, in KiB.
    pub async fn peak_kib(&self) -> u64 {
        let mut life = self.life.lock().await;
        life.note_peak();
        life.peak_kib
    }
}

impl Life {
    fn note_peak(&mut self) {
        let Some(pid) = self.child.as_ref().and_then(Child::id) else {
            return;
        };
        self.peak_kib = self.peak_kib.max(resident_kib(pid, "VmHWM:").unwrap_or_default());
    }
}
