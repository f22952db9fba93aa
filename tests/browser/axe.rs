//! axe-core, which finds what keeps people out: from npm, at one version, into the folder of this build.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::{process::Command, sync::OnceCell};

use crate::chromium::Person;

const AXE: &str = "axe-core@4.14.1";

static SOURCE: OnceCell<Option<String>> = OnceCell::const_new();

/// The source of axe-core. Where npm is missing, CI fails, and elsewhere one loud line says what was skipped.
pub async fn axe() -> Option<&'static str> {
    let source = SOURCE
        .get_or_init(|| async {
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(AXE);
            let script: PathBuf = folder.join("node_modules/axe-core/axe.min.js");
            if !script.exists() {
                std::fs::create_dir_all(&folder).expect("a folder");
                let install = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save", AXE];
                let installed = Command::new("npm").args(install).current_dir(&folder).output().await;
                if !installed.is_ok_and(|output| output.status.success()) {
                    return None;
                }
            }
            std::fs::read_to_string(script).ok()
        })
        .await;
    match source {
        Some(source) => Some(source),
        None if std::env::var_os("CI").is_some() => panic!("axe-core can not be had from npm, and this is CI"),
        None => {
            eprintln!("SKIPPED: accessibility was not looked at: npm could not install {AXE}");
            None
        }
    }
}

impl Person {
    /// Asserts that axe finds nothing on the page as it is now, in the light and in the dark.
    pub async fn expect_accessible(&self, axe: &str, what: &str) {
        for theme in ["light", "dark"] {
            // Without motion: a colour on its way from one theme to the other is neither.
            let media = json!({ "features": [
                { "name": "prefers-color-scheme", "value": theme },
                { "name": "prefers-reduced-motion", "value": "reduce" },
            ] });
            self.tell_chrome("Emulation.setEmulatedMedia", media).await;
            self.driver.execute(format!("if (!window.axe) {{ {axe} }}"), Vec::new()).await.expect("axe is loaded");
            let run = "const done = arguments[0]; axe.run(document).then(({ violations }) => done(violations.map(
                ({ id, nodes }) => [id, nodes.map(({ target, failureSummary }) => [target, failureSummary])])))";
            let found = self.driver.execute_async(run, Vec::new()).await.expect("axe runs");
            let found: Value = found.convert().expect("what it found");
            assert_eq!(found, json!([]), "{what}, {theme}");
            self.picture(&format!("{what}-{theme}")).await;
        }
    }
}
