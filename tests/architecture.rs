//! The rules of the tree, checked on the source text: data flows one way.
#![allow(clippy::unwrap_used)] // In a test a panic is the report.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Everybody may use these: the vocabulary, which imports nothing of ours but itself, and what counts and logs.
const VOCABULARY: [&str; 5] = ["message", "topic", "event", "cursor", "telemetry"];

/// Module, and what of ours it may import besides the vocabulary.
const ALLOWED: &[(&str, &[&str])] = &[
    ("message", &[]),
    ("topic", &[]),
    ("event", &[]),
    ("cursor", &[]),
    ("telemetry", &[]),
    ("base_path", &[]),
    ("feed", &[]),
    ("mongo", &[]),
    ("problem", &["listener", "mongo", "rates"]),
    ("rates", &["listener"]),
    ("origin", &["problem"]),
    ("replay", &["feed", "mongo"]),
    ("presence", &["mongo"]),
    ("watcher", &["feed", "mongo"]),
    ("vitals", &["feed", "mongo", "presence", "watcher"]),
    ("readiness", &["mongo", "watcher"]),
    ("middleware", &["base_path", "listener", "origin", "pages", "problem", "rates"]),
    ("api", &["base_path", "listener", "mongo", "presence", "problem", "rates", "readiness", "vitals", "watcher"]),
    ("sessions", &["feed", "listener", "mongo", "presence", "problem", "rates", "replay", "watcher"]),
    ("asyncapi", &["base_path", "sessions"]),
    ("pages", &["base_path", "listener", "mongo", "presence", "problem", "rates", "sessions", "vitals", "watcher"]),
    ("listener", &[]),
    ("config", &["base_path", "feed", "listener", "mongo", "origin", "rates", "replay"]),
    (
        "routes",
        &[
            "api",
            "asyncapi",
            "base_path",
            "middleware",
            "origin",
            "pages",
            "problem",
            "rates",
            "readiness",
            "sessions",
            "vitals",
        ],
    ),
    (
        "app",
        &[
            "api",
            "base_path",
            "config",
            "feed",
            "listener",
            "mongo",
            "origin",
            "pages",
            "presence",
            "rates",
            "readiness",
            "replay",
            "routes",
            "sessions",
            "vitals",
            "watcher",
        ],
    ),
    ("lib", &[]),
];

/// A crate, and the only modules that may name it.
const ONLY_IN: [(&str, &[&str]); 3] = [
    ("mongodb::", &["mongo"]),
    ("poem::", &["api", "listener", "middleware", "origin", "pages", "problem", "routes", "sessions"]),
    ("mongo_replica_set::", &["main"]),
];

/// The most lines of a file, without the tests at its end.
const LINES_MAX: usize = 400;
/// What the tests at the end of a file begin with.
const TESTS: &str = "#[cfg(test)]\nmod tests";

#[test]
fn imports_go_one_way() {
    for (module, path, text) in sources() {
        if module == "main" {
            continue;
        }
        let allowed = ALLOWED.iter().find(|(name, _)| *name == module);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{} has no room in the tree", path.display()));
        for imported in imports_of(&text) {
            let is_allowed =
                imported == module || VOCABULARY.contains(&imported.as_str()) || allowed.contains(&imported.as_str());
            assert!(is_allowed, "{} must not import `{imported}`", path.display());
        }
    }
}

#[test]
fn the_vocabulary_imports_only_itself() {
    let vocabulary: BTreeSet<&str> = ["message", "topic", "event", "cursor"].into();
    for (module, path, text) in sources() {
        if vocabulary.contains(module.as_str()) {
            for imported in imports_of(&text) {
                assert!(vocabulary.contains(imported.as_str()), "{} imports `{imported}`", path.display());
            }
        }
    }
}

#[test]
fn the_driver_and_the_framework_stop_where_they_should() {
    for (name, modules) in ONLY_IN {
        for (module, path, text) in sources() {
            let code = code_of(&text);
            let names = code.match_indices(name).any(|(at, _)| {
                let before = code[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            });
            assert!(!names || modules.contains(&module.as_str()), "{} must not name {name}", path.display());
        }
    }
}

#[test]
fn only_the_watcher_is_given_the_pen() {
    for (module, path, text) in sources() {
        let code = code_of(&text);
        let may = ["app", "feed", "watcher"].contains(&module.as_str());
        assert!(may || !code.contains("FeedWriter"), "{} must not name FeedWriter", path.display());
    }
}

#[test]
fn only_the_configuration_reads_the_environment() {
    for (module, path, text) in sources() {
        let reads = code_of(&text).contains("env::var");
        assert!(module == "config" || !reads, "{} reads the environment", path.display());
    }
}

#[test]
fn no_file_has_grown_past_its_bound_and_none_is_a_drawer() {
    for (_, path, text) in sources() {
        let lines = text.split(TESTS).next().unwrap_or_default().lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines: split it by ability", path.display());
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        assert!(!["utils", "util", "common", "helpers", "misc"].contains(&stem), "{}", path.display());
    }
}

#[test]
fn no_crate_of_ours_can_have_unsafe_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = |path: &str| fs::read_to_string(root.join(path)).expect("a manifest");
    let workspace = manifest("Cargo.toml");
    assert!(workspace.contains("[workspace.lints.rust]\nunsafe_code = \"forbid\"\n"));
    assert!(workspace.contains("members = [\"mongo-replica-set\"]\n"), "a new member is to be named below");
    for member in ["Cargo.toml", "mongo-replica-set/Cargo.toml"] {
        assert!(manifest(member).contains("[lints]\nworkspace = true\n"), "{member}");
    }
}

/// Top-level module, path and text of every source file of the server.
fn sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the source") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let first = path.strip_prefix(&root).expect("below src").components().next().expect("a name");
                let module = first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
                let text = fs::read_to_string(&path).expect("a source file");
                found.push((module, path, text));
            }
        }
    }
    assert!(found.len() > 20, "the source was not found");
    found
}

/// Without comments and without the tests at the end of a file, which may join what the code must not.
fn code_of(text: &str) -> String {
    let code = text.split(TESTS).next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The modules of ours that a file names by `crate::`.
fn imports_of(text: &str) -> BTreeSet<String> {
    let code = code_of(text);
    let mut modules = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        match rest.strip_prefix('{') {
            None => {
                modules.insert(name(rest));
            }
            Some(group) => {
                let mut depth = 0;
                let mut at_start = true;
                for (at, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => at_start = true,
                        c if at_start && !c.is_whitespace() => {
                            modules.insert(name(&group[at..]));
                            at_start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    modules
}
