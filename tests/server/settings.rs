//! The settings, as the documents have them.

use std::{fs, path::Path};

use clap::CommandFactory;
use corriente::config::Config;

const DOCUMENT: &str = "docs/configuration.md";
/// Between these lines of the document stands the table.
const BEGIN: &str = "<!-- The table below is what `--help` says; a test holds it against that. -->\n\n";
const END: &str = "\n<!-- The end of the table. -->\n";

/// The table, made of what the program has.
fn table() -> String {
    let mut table = "| Flag | Variable | Default | What, and why |\n|---|---|---|---|\n".to_owned();
    for argument in Config::command().get_arguments() {
        let (Some(flag), Some(variable)) = (argument.get_long(), argument.get_env()) else { continue };
        let values: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let default = match values.join(",") {
            none if none.is_empty() => "none".to_owned(),
            values => format!("`{values}`"),
        };
        let help = argument.get_help().expect("every setting is explained").to_string().replace('|', "\\|");
        let variable = variable.to_string_lossy();
        table += &format!("| `--{flag}` | `{variable}` | {default} | {help}. |\n");
    }
    table
}

#[test]
fn the_table_of_settings_is_what_help_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
    let document = fs::read_to_string(&path).expect("the document");
    let (before, rest) = document.split_once(BEGIN).expect("where the table begins");
    let (written, after) = rest.split_once(END).expect("where the table ends");
    if written != table() {
        let right = Path::new(env!("CARGO_TARGET_TMPDIR")).join("configuration.md");
        fs::write(&right, [before, BEGIN, &table(), END, after].concat()).expect("a place for the right one");
        panic!("{DOCUMENT} is not what --help says; with the table that is, it stands in {}", right.display());
    }
}

#[test]
fn limits_and_times_say_their_units() {
    for argument in Config::command().get_arguments() {
        let (Some(flag), Some(help)) = (argument.get_long(), argument.get_help()) else { continue };
        let help = help.to_string();
        let unit = match flag {
            _ if flag.ends_with("-secs") => "second",
            _ if flag.ends_with("-bytes-max") => "in bytes",
            _ if flag.ends_with("-days") => "days",
            _ => continue,
        };
        assert!(help.contains(unit), "--{flag} does not say {unit}: {help}");
    }
}
