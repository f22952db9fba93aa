//! Flags and variables, and the lines that it prints.

use std::collections::BTreeSet;

use clap::CommandFactory;
use corriente::config::Config;
use serde_json::Value;
use tokio::time::timeout;

use super::{DataDir, PATIENCE, Program, START_WITHIN, STOP_WITHIN, command, free_port, say};
use crate::harness::eventually;

#[tokio::test]
async fn help_names_every_flag_with_its_variable() {
    let mut program = command();
    program.arg("--help").env("MONGODB_URI", "mongodb://user:hunter2@host/");
    let ended = Program::start(program).ended(PATIENCE).await;
    assert!(ended.status.success());
    assert!(!ended.stdout.contains("hunter2"), "{}", ended.stdout);
    let mut named = BTreeSet::new();
    for argument in Config::command().get_arguments() {
        let flag = argument.get_long().expect("a long flag");
        if ["help", "version"].contains(&flag) {
            continue;
        }
        let variable = argument.get_env().unwrap_or_else(|| panic!("--{flag} has no variable")).to_str().unwrap();
        assert_eq!(variable, flag.to_uppercase().replace('-', "_"), "one name in two spellings");
        let text = ended.stdout.split(&format!("--{flag} ")).chain(ended.stdout.split(&format!("--{flag}\n"))).nth(1);
        assert!(text.is_some() && ended.stdout.contains(&format!("--{flag}")), "--{flag} is not in {}", ended.stdout);
        assert!(ended.stdout.contains(&format!("[env: {variable}")), "{variable} is not in {}", ended.stdout);
        named.insert(flag.to_owned());
    }
    for flag in ["mongodb-uri", "host", "port", "collection", "data-dir", "log-format"] {
        assert!(named.contains(flag), "--{flag}");
    }
}

#[tokio::test]
async fn it_says_its_version_and_refuses_what_it_does_not_know() {
    let mut version = command();
    version.arg("--version");
    let ended = Program::start(version).ended(PATIENCE).await;
    assert!(ended.status.success());
    assert_eq!(ended.stdout, format!("corriente {}\n", env!("CARGO_PKG_VERSION")));
    for (name, value) in [("PORT", "port"), ("PORT", "65536"), ("KEEP_ALIVE_SECS", "31"), ("LOG_FORMAT", "xml")] {
        let mut wrong = command();
        wrong.env(name, value);
        let ended = Program::start(wrong).ended(PATIENCE).await;
        assert_eq!(ended.status.code(), Some(2), "{name}={value}: {}", ended.stderr);
        assert!(ended.stderr.contains(value) && !ended.stderr.contains("panicked"), "{}", ended.stderr);
    }
    let mut unknown = command();
    unknown.arg("--log-entrys-max=5");
    let ended = Program::start(unknown).ended(PATIENCE).await;
    assert_eq!(ended.status.code(), Some(2));
    assert!(ended.stderr.contains("'--log-entries-max'"), "it says what was meant: {}", ended.stderr);
}

#[tokio::test]
async fn settings_that_contradict_each_other_are_refused_before_anything_is_started() {
    let dir = DataDir::new();
    let mut contradictory = command();
    contradictory.env("DATA_DIR", dir.path()).env("READ_ONLY", "true").env("KEEP_DAYS", "7");
    contradictory.args(["--connections-max", "5", "--connections-per-address-max", "6"]);
    let ended = Program::start(contradictory).ended(PATIENCE).await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);
    let errors: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 2, "{}", ended.stderr);
    assert!(errors[0].contains("CONNECTIONS_PER_ADDRESS_MAX (6)") && errors[1].contains("KEEP_DAYS"), "{errors:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "no MongoDB was begun");
}

#[tokio::test]
async fn whoever_reads_only_the_first_line_does_not_end_it() {
    let dir = DataDir::new();
    let mut command = command();
    command.env("DATA_DIR", dir.path());
    let port = free_port();
    command.env("PORT", port.to_string());
    let mut program = Program::start(command);
    let first = timeout(START_WITHIN, program.stdout.next_line()).await.unwrap().unwrap();
    assert!(first.unwrap().starts_with("mongodb: "));
    let Program { child, stdout, .. } = program;
    drop(stdout);
    let url = format!("http://127.0.0.1:{port}/livez");
    eventually("it listens", async || reqwest::get(&url).await.ok().filter(|answer| answer.status() == 200)).await;
    drop(child);
}

#[tokio::test]
async fn log_lines_are_json_when_asked_for() {
    let dir = DataDir::new();
    let mut command = command();
    command.env("DATA_DIR", dir.path()).env("LOG_FORMAT", "json");
    let mut program = Program::start(command);
    let (_, url) = program.ready().await;
    say(&url, "x").await;
    program.signal("TERM").await;
    let ended = program.ended(STOP_WITHIN).await;
    assert!(ended.stderr.lines().count() > 1, "{}", ended.stderr);
    for line in ended.stderr.lines() {
        let parsed: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
        assert!(parsed["message"].is_string() && parsed["level"].is_string(), "{line}");
    }
}
