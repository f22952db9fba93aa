//! The program in a process of its own: for faults that end it, and for what they cost it.

use std::{fs, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::world::World;

/// How long a start may take, in seconds.
const START_SECS_MAX: u64 = 20;
/// How long a stop may take, in seconds: this is promised.
const STOP_SECS_MAX: u64 = 10;
/// The unit of times in `/proc`, which Linux shows to programs as 100 a second on every architecture.
const TICK: Duration = Duration::from_millis(10);

/// All clients of a test have one address, and write faster than people.
pub const WITHOUT_RATES: [&str; 6] =
    ["--rate-per-address", "0", "--rate-per-sender", "0", "--rate-requests-per-address", "0"];

/// A running server. Dropping it kills it.
pub struct Program {
    child: Child,
    pub url: String,
}

impl Program {
    /// Starts one on `port` (0: any), and returns when it listens.
    pub async fn start(world: &World, port: u16) -> Self {
        let port = port.to_string();
        Self::start_limited(world, &[&["--port", &port], &WITHOUT_RATES[..]].concat()).await
    }

    /// Starts one on any port, with these flags besides.
    pub async fn start_with(world: &World, flags: &[&str]) -> Self {
        Self::start_limited(world, &[flags, &WITHOUT_RATES[..]].concat()).await
    }

    /// Starts one with these flags, and the limits of rates that it has by itself.
    pub async fn start_limited(world: &World, flags: &[&str]) -> Self {
        let port: &[&str] = if flags.contains(&"--port") { &[] } else { &["--port", "0"] };
        let mut child = Command::new(env!("CARGO_BIN_EXE_corriente"))
            .args(["--mongodb-uri", &world.uri(), "--database", world.database.name()])
            .args(port)
            .args(flags)
            .args(&world.flags)
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its stdout")).lines();
        let listening = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(url) = line.strip_prefix("listening on ") {
                    return url.to_owned();
                }
            }
            panic!("the program ended");
        };
        let url = timeout(Duration::from_secs(START_SECS_MAX), listening).await.expect("it listens");
        Self { child, url }
    }

    /// Starts it once more on its address, after it has ended.
    pub async fn start_again(&mut self, world: &World) {
        let port = self.url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
        *self = Self::start(world, port).await;
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("it is killed");
    }

    /// SIGTERM, upon which it must end in time and in order.
    pub async fn stop(&mut self) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill runs").success());
        let ended = timeout(Duration::from_secs(STOP_SECS_MAX), self.child.wait()).await.expect("it ends in time");
        let status = ended.expect("its status");
        assert!(status.success(), "{status}");
    }

    fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// The processor time that it has used so far.
    pub fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("Linux tells");
        // The name, in parentheses, is the only field that may hold spaces. User and system time are the 14th and 15th.
        let fields = stat.rsplit_once(')').expect("a name").1.split_whitespace();
        let ticks: u32 = fields.skip(11).take(2).map(|ticks| ticks.parse::<u32>().expect("a number")).sum();
        TICK * ticks
    }

    /// Its resident memory.
    pub fn resident_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// The most that this ever was.
    pub fn resident_peak_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    fn status_kib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("Linux tells");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("its memory");
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// Lets it have so many descriptors open, whatever it has now.
    pub async fn limit_descriptors(&self, count: u32) {
        let arguments = [format!("--pid={}", self.pid()), format!("--nofile={count}:")];
        let status = Command::new("prlimit").args(arguments).status().await.expect("prlimit of util-linux runs");
        assert!(status.success(), "{status}");
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("Linux tells").count()
    }
}
