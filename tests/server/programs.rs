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

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::harness::PATIENCE_SECS;

/// How long an installation may take, in seconds: some megabytes over a slow line.
const INSTALL_SECS_MAX: u64 = 300;
/// How long a program may run, in seconds.
const RUN_SECS_MAX: u64 = 60;

/// Where the programs, and the lists of what they need, are.
pub const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs");
/// Programs to be pasted by others.
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/clients");
/// Where what they need is installed: outside the source, and kept between runs.
const CACHE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/programs");

/// A language with its packages, ready to run programs.
pub struct Language {
    interpreter: PathBuf,
    variables: Vec<(&'static str, PathBuf)>,
    /// Where its packages are installed.
    pub folder: PathBuf,
}

impl Language {
    /// Python with the packages of `requirements.txt`. `None`, loudly, where that can not be had; see [`or_skip`].
    pub async fn python() -> Option<Self> {
        let list = "requirements.txt";
        let how = async |folder: &Path| install_python(folder, list).await;
        or_skip("Python", install("python", Path::new(SOURCES), &[list], how).await).map(|folder| Self {
            interpreter: folder.join("venv/bin/python"),
            variables: Vec::new(),
            folder,
        })
    }

    /// Node.js with the packages of `package-lock.json`. `None`, loudly, where that can not be had; see [`or_skip`].
    pub async fn node() -> Option<Self> {
        Self::node_with("node", Path::new(SOURCES)).await
    }

    /// Node.js with the shell of MongoDB.
    pub async fn mongosh() -> Option<Self> {
        Self::node_with("mongosh", &Path::new(SOURCES).join("mongosh")).await
    }

    /// Node.js with what checks specifications and makes clients of them.
    pub async fn specifications() -> Option<Self> {
        Self::node_with("specifications", &Path::new(SOURCES).join("specifications")).await
    }

    async fn node_with(name: &str, lists: &Path) -> Option<Self> {
        let files = ["package.json", "package-lock.json"];
        or_skip("Node.js", install(name, lists, &files, install_node).await).map(|folder| Self {
            interpreter: "node".into(),
            variables: vec![("NODE_PATH", folder.join("node_modules"))],
            folder,
        })
    }

    /// Runs a program of `tests/programs`, which must succeed, and returns what it printed.
    pub async fn run(&self, program: &str, args: &[&str]) -> String {
        let mut command = self.command(&Path::new(SOURCES).join(program));
        command.args(args);
        match output(command, RUN_SECS_MAX).await {
            Ok(printed) => printed,
            Err(why) => panic!("{program} {why}"),
        }
    }

    /// Runs a program to its end, which may be bad, and returns what it printed, or why it failed.
    pub async fn attempt(&self, program: &Path, args: &[&str], folder: &Path) -> Result<String, String> {
        let mut command = self.command(program);
        // What it keeps for its user is not for ours.
        command.args(args).current_dir(folder).env("HOME", folder);
        output(command, RUN_SECS_MAX).await
    }

    /// Starts a program of `examples/clients` as somebody does who has copied it to a folder with its packages.
    pub fn start_example(&self, program: &str, variable: (&str, &str)) -> Running {
        let folder = TempDir::new_in(&self.folder).expect("a folder beside the packages");
        let copy = folder.path().join(program);
        fs::copy(Path::new(EXAMPLES).join(program), &copy).expect("the program");
        let mut command = self.command(&copy);
        command.env(variable.0, variable.1);
        Running { _folder: Some(folder), ..Running::start(command) }
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(&self.interpreter);
        command.arg(program).envs(self.variables.iter().cloned());
        // Python would leave its byte code beside the source.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

/// The path of a file of `tests/programs`.
pub fn source(name: &str) -> PathBuf {
    Path::new(SOURCES).join(name)
}

/// The path of a program of `examples/clients`.
pub fn example(program: &str) -> PathBuf {
    Path::new(EXAMPLES).join(program)
}

/// A program that runs until it is dropped, or ends.
pub struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    input: Option<ChildStdin>,
    _folder: Option<TempDir>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = piped.spawn().expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let input = child.stdin.take();
        Self { child, lines, input, _folder: None }
    }

    /// Its next line; `None` when it has closed its output.
    pub async fn line(&mut self) -> Option<String> {
        let line = timeout(Duration::from_secs(PATIENCE_SECS), self.lines.next_line()).await;
        line.expect("a line within the deadline").expect("lines of text")
    }

    /// Types a line.
    pub async fn type_line(&mut self, line: &str) {
        self.type_bytes(format!("{line}\n").as_bytes()).await;
    }

    /// Types what may not even be text.
    pub async fn type_bytes(&mut self, bytes: &[u8]) {
        let input = self.input.as_mut().expect("its input is open");
        input.write_all(bytes).await.expect("it reads");
        input.flush().await.expect("it reads");
    }

    /// Ends its input, and returns the lines that it still prints. It must succeed.
    pub async fn end(&mut self) -> Vec<String> {
        self.input = None;
        let mut lines = Vec::new();
        while let Some(line) = self.line().await {
            lines.push(line);
        }
        let status = timeout(Duration::from_secs(PATIENCE_SECS), self.child.wait()).await;
        let status = status.expect("it ends").expect("its status");
        assert!(status.success(), "{status}");
        lines
    }
}

/// The path of one of our own examples, built as it is now: a test that runs alone would else meet an old one.
pub async fn own_example(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_corriente"));
    let built = program.parent().expect("a folder of programs");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--example", name]).current_dir(env!("CARGO_MANIFEST_DIR"));
    // What Cargo tells the programs that it runs is not for another Cargo: build scripts that look at it would run again, and
    // most of the dependencies be built anew.
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|told| name.to_string_lossy().starts_with(told)) {
            cargo.env_remove(name);
        }
    }
    if built.ends_with("release") {
        cargo.arg("--release");
    }
    if let Err(why) = output(cargo, INSTALL_SECS_MAX).await {
        panic!("the example {name} could not be built: it {why}");
    }
    built.join("examples").join(name)
}

/// A program that tries servers out.
pub struct Tool {
    path: PathBuf,
}

impl Tool {
    /// One of Python's, out of `tools.txt`. `None`, loudly, where that can not be had; see [`or_skip`].
    pub async fn of_python(name: &str) -> Option<Self> {
        let list = "tools.txt";
        let how = async |folder: &Path| install_python(folder, list).await;
        let installed = install("tools", Path::new(SOURCES), &[list], how).await;
        or_skip(name, installed).map(|folder| Self { path: folder.join("venv/bin").join(name) })
    }

    /// One of a package of the system. `None`, loudly, where it is not installed; see [`or_skip`].
    pub async fn of_system(name: &str, package: &str) -> Option<Self> {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&paths).map(|folder| folder.join(name)).find(|path| path.is_file());
        or_skip(name, found.ok_or_else(|| format!("it comes with the package {package}"))).map(|path| Self { path })
    }

    /// Runs it in `folder`, and returns what it printed; why not, when it fails or takes too long.
    pub async fn run(&self, folder: &Path, args: &[&str], secs_max: u64) -> Result<String, String> {
        let mut command = Command::new(&self.path);
        command.args(args).current_dir(folder).env("NO_COLOR", "1").env("PYTHONDONTWRITEBYTECODE", "1");
        output(command, secs_max).await
    }
}

/// On a developer's machine without Python or Node.js a test that needs it says so and ends; in CI it fails.
pub fn or_skip<T>(what: &str, installed: Result<T, String>) -> Option<T> {
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
    lists: &Path,
    files: &[&str],
    how: impl AsyncFnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let mut hasher = DefaultHasher::new();
    for file in files {
        fs::read(lists.join(file)).map_err(|error| format!("{file}: {error}"))?.hash(&mut hasher);
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
        fs::copy(lists.join(file), folder.join(file)).map_err(in_words)?;
    }
    how(&folder).await?;
    File::create(&done).map_err(in_words)?;
    Ok(folder)
}

async fn install_python(folder: &Path, list: &str) -> Result<(), String> {
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv"]).arg(folder.join("venv"));
    output(venv, INSTALL_SECS_MAX).await.map_err(|why| format!("python3 -m venv {why}"))?;
    let mut pip = Command::new(folder.join("venv/bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
    pip.arg(folder.join(list));
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
            let (said, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            Err(format!("ended with {}: {}\n{}", output.status, complaint.trim(), said.trim()))
        }
    }
}
