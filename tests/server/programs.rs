//! Programs of other people's, in their own languages: installed once per machine, pinned, and run by tests.

use std::{
    collections::hash_map::DefaultHasher,
    fs::{self, File},
    hash::{Hash, Hasher},
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

/// How long an installation may take, in seconds: some megabytes over a slow line.
const INSTALL_SECS_MAX: u64 = 300;
/// How long a program may run, in seconds.
const RUN_SECS_MAX: u64 = 60;

/// Where the programs, and the lists of what they need, are.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs");
/// Where what they need is installed: outside the source, and kept between runs.
const CACHE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/programs");

/// A language with its packages, ready to run programs.
pub struct Language {
    interpreter: PathBuf,
    variables: Vec<(&'static str, PathBuf)>,
}

impl Language {
    /// Python with the packages of `requirements.txt`. `None`, loudly, where that can not be had; see [`or_skip`].
    pub async fn python() -> Option<Self> {
        or_skip("Python", install("python", &["requirements.txt"], install_python).await)
            .map(|folder| Self { interpreter: folder.join("venv/bin/python"), variables: Vec::new() })
    }

    /// Node.js with the packages of `package-lock.json`. `None`, loudly, where that can not be had; see [`or_skip`].
    pub async fn node() -> Option<Self> {
        let files = ["package.json", "package-lock.json"];
        or_skip("Node.js", install("node", &files, install_node).await).map(|folder| Self {
            interpreter: "node".into(),
            variables: vec![("NODE_PATH", folder.join("node_modules"))],
        })
    }

    /// Runs a program of `tests/programs`, which must succeed, and returns what it printed.
    pub async fn run(&self, program: &str, args: &[&str]) -> String {
        let mut command = Command::new(&self.interpreter);
        command.arg(Path::new(SOURCES).join(program)).args(args).envs(self.variables.iter().cloned());
        // Python would leave its byte code beside the source.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        match output(command, RUN_SECS_MAX).await {
            Ok(printed) => printed,
            Err(why) => panic!("{program} {why}"),
        }
    }
}

/// On a developer's machine without Python or Node.js a test that needs it says so and ends; in CI it fails.
fn or_skip<T>(what: &str, installed: Result<T, String>) -> Option<T> {
    match installed {
        Ok(installed) => Some(installed),
        Err(why) if std::env::var_os("CI").is_some_and(|ci| !ci.is_empty()) => panic!("no {what}: {why}"),
        Err(why) => {
            // Not `eprintln!`, whose output the test runner keeps to itself when the test passes.
            let _ = writeln!(std::io::stderr(), "SKIPPED, and not tested: {what} can not be used ({why})");
            None
        }
    }
}

/// A folder of the cache in which `how` has been carried out for these files. Tests and test processes that come at
/// once wait for one of them to do it; another version of the files is another folder.
async fn install(
    name: &str,
    files: &[&str],
    how: impl AsyncFnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let mut hasher = DefaultHasher::new();
    for file in files {
        fs::read(Path::new(SOURCES).join(file)).map_err(|error| format!("{file}: {error}"))?.hash(&mut hasher);
    }
    let folder = Path::new(CACHE).join(format!("{name}-{:016x}", hasher.finish()));
    let done = folder.join("installed");
    if done.exists() {
        return Ok(folder);
    }
    let in_words = |error: std::io::Error| format!("{}: {error}", folder.display());
    fs::create_dir_all(CACHE).map_err(in_words)?;
    let lock = File::create(folder.with_extension("lock")).map_err(in_words)?;
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await.expect("the lock is waited for");
    let _lock = lock.map_err(in_words)?;
    if done.exists() {
        return Ok(folder);
    }
    // What an installation that was cut off has left.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(in_words)?;
    for file in files {
        fs::copy(Path::new(SOURCES).join(file), folder.join(file)).map_err(in_words)?;
    }
    how(&folder).await?;
    File::create(&done).map_err(in_words)?;
    Ok(folder)
}

async fn install_python(folder: &Path) -> Result<(), String> {
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv"]).arg(folder.join("venv"));
    output(venv, INSTALL_SECS_MAX).await.map_err(|why| format!("python3 -m venv {why}"))?;
    let mut pip = Command::new(folder.join("venv/bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
    pip.arg(folder.join("requirements.txt"));
    output(pip, INSTALL_SECS_MAX).await.map(|_| ()).map_err(|why| format!("pip install {why}"))
}

async fn install_node(folder: &Path) -> Result<(), String> {
    let mut version = Command::new("node");
    version.arg("--version");
    output(version, RUN_SECS_MAX).await.map_err(|why| format!("node {why}"))?;
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]).current_dir(folder);
    output(npm, INSTALL_SECS_MAX).await.map(|_| ()).map_err(|why| format!("npm ci {why}"))
}

/// What a command prints, when it succeeds within its time; else why it did not.
async fn output(mut command: Command, secs_max: u64) -> Result<String, String> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    match timeout(Duration::from_secs(secs_max), command.output()).await {
        Err(_) => Err(format!("did not end within {secs_max} s")),
        Ok(Err(error)) => Err(format!("could not be started: {error}")),
        Ok(Ok(output)) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(Ok(output)) => {
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(format!("ended with {}: {}", output.status, complaint.trim()))
        }
    }
}
