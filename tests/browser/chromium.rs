//! A chromedriver and windows in it, with the words of the people who use them.

use std::{
    path::Path,
    process::Stdio,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use futures::FutureExt;
use serde_json::json;
use tempfile::TempDir;
use thirtyfour::{ChromeCapabilities, prelude::*};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::Mutex,
    time::{sleep, timeout},
};

/// How long something may take to show, in seconds.
const PATIENCE_SECS: u64 = 20;

/// The chromedriver that all tests of this binary share. It goes with the last test that uses it.
static SHARED: Mutex<Weak<Chromium>> = Mutex::const_new(Weak::new());

/// One chromedriver.
pub struct Chromium {
    url: String,
    _driver: Child,
    /// Where chromedriver and Chromium keep what they need; after the driver, so that it goes when they have gone.
    _files: TempDir,
}

/// How a window is opened.
#[derive(Clone, Copy, Default)]
pub struct Window {
    pub without_javascript: bool,
    pub spanish: bool,
    pub width: u32,
}

/// Runs a test with a Chromium. Where there is none, CI fails, and elsewhere one loud line says that it was skipped.
pub async fn with_chromium<F: Future<Output = ()>>(test: impl FnOnce(Arc<Chromium>) -> F) {
    match Chromium::shared().await {
        Some(chromium) => test(chromium).await,
        None if std::env::var_os("CI").is_some() => panic!("chromedriver or chromium is missing, and this is CI"),
        None => eprintln!("SKIPPED: no browser test ran: install the packages chromium and chromium-driver"),
    }
}

impl Chromium {
    async fn shared() -> Option<Arc<Self>> {
        let mut shared = SHARED.lock().await;
        if let Some(running) = shared.upgrade() {
            return Some(running);
        }
        let started = Arc::new(Self::start().await?);
        *shared = Arc::downgrade(&started);
        Some(started)
    }

    async fn start() -> Option<Self> {
        let files = TempDir::new().expect("a temporary folder");
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("TMPDIR", files.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .ok()?;
        let mut lines = BufReader::new(driver.stdout.take()?).lines();
        let port = async {
            while let Ok(Some(line)) = lines.next_line().await {
                let port = line.rsplit_once("on port ").map(|(_, port)| port.trim_end_matches('.').to_owned());
                if let Some(port) = port.filter(|port| port.parse::<u16>().is_ok_and(|port| port > 0)) {
                    return Some(port);
                }
            }
            None
        };
        let port = timeout(Duration::from_secs(PATIENCE_SECS), port).await.ok()??;
        Some(Self { url: format!("http://127.0.0.1:{port}"), _driver: driver, _files: files })
    }

    /// A window of its own, with a profile of its own, so that two of them are two people. It is closed whatever the
    /// test does.
    pub async fn window<T, F>(&self, window: Window, test: impl FnOnce(Person) -> F) -> T
    where
        F: Future<Output = T>,
    {
        let driver = WebDriver::new(&self.url, capabilities(window)).await.expect("Chromium starts");
        let outcome =
            std::panic::AssertUnwindSafe(test(Person { driver: driver.clone(), chromedriver: self.url.clone() }))
                .catch_unwind()
                .await;
        let _ = driver.quit().await;
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn capabilities(window: Window) -> ChromeCapabilities {
    let width = if window.width == 0 { 1200 } else { window.width };
    let mut capabilities = DesiredCapabilities::chrome();
    for argument in [
        "--headless=new",
        // The sandbox needs rights that containers and CI machines lack.
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        &format!("--window-size={width},800"),
        &format!("--lang={}", if window.spanish { "es" } else { "en" }),
    ] {
        capabilities.add_arg(argument).expect("an argument");
    }
    let languages = if window.spanish { "es-MX,es" } else { "en-US,en" };
    let mut preferences = json!({ "intl.accept_languages": languages, "intl.selected_languages": languages });
    if window.without_javascript {
        preferences["profile.managed_default_content_settings.javascript"] = json!(2);
    }
    capabilities.add_experimental_option("prefs", preferences).expect("preferences");
    capabilities
}

/// Somebody in front of a window.
pub struct Person {
    pub driver: WebDriver,
    chromedriver: String,
}

impl Person {
    pub async fn open(&self, url: &str) {
        self.driver.goto(url).await.expect("the page opens");
    }

    /// Opens a page and waits until it says that it is live.
    pub async fn open_live(&self, url: &str) {
        self.open(url).await;
        self.wait("the page is live", async || self.connection().await == "Live").await;
    }

    /// Writes a message as a person does: name, text, Enter.
    pub async fn say(&self, name: &str, text: &str) {
        self.fill("sender", name).await;
        self.fill("content", text).await;
        self.field("content").await.send_keys(Key::Enter + "").await.expect("Enter");
    }

    /// Presses keys, wherever the focus is.
    pub async fn press(&self, keys: impl Into<TypingData>) {
        self.driver.active_element().await.expect("a focus").send_keys(keys).await.expect("keys");
    }

    /// Runs a script in the page and returns what it returns.
    pub async fn ask<T: serde::de::DeserializeOwned>(&self, script: &str) -> T {
        let answer = self.driver.execute(script, Vec::new()).await.expect("the script runs");
        answer.convert().expect("an answer of this kind")
    }

    pub async fn click(&self, css: &str) {
        self.driver.find(By::Css(css)).await.expect("it is there").click().await.expect("it can be clicked");
    }

    /// A command of the Chrome DevTools protocol, for what WebDriver can not do.
    pub async fn tell_chrome(&self, command: &str, parameters: serde_json::Value) {
        let session = self.driver.session_id();
        let url = format!("{}/session/{session}/goog/cdp/execute", self.chromedriver);
        let request = reqwest::Client::new().post(url).json(&json!({ "cmd": command, "params": parameters }));
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{command}: {:?}", answer.text().await);
    }

    pub async fn field(&self, name: &str) -> WebElement {
        self.driver.find(By::Css(format!("form [name={name}]:not([type=hidden])"))).await.expect("the field is there")
    }

    pub async fn fill(&self, name: &str, text: &str) {
        let field = self.field(name).await;
        field.clear().await.expect("the field can be emptied");
        field.send_keys(text).await.expect("the field can be written in");
    }

    /// What the banner says.
    pub async fn connection(&self) -> String {
        self.text_of("[role=status]").await
    }

    pub async fn text_of(&self, css: &str) -> String {
        match self.driver.find(By::Css(css)).await {
            Ok(element) => element.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// The texts of the messages, as shown, oldest first.
    pub async fn messages(&self) -> Vec<String> {
        let script = "return [...document.querySelectorAll('[role=log] article .text')].map(text => text.innerText)";
        match self.driver.execute(script, Vec::new()).await {
            Ok(texts) => texts.convert().unwrap_or_default(),
            // Without JavaScript there is no script to ask, only elements.
            Err(_) => Vec::new(),
        }
    }

    pub async fn wait_for_messages(&self, expected: &[&str]) {
        self.wait(&format!("the page shows {expected:?}"), async || self.messages().await == expected).await;
    }

    /// Waits until `condition` holds.
    pub async fn wait(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let start = Instant::now();
        while !condition().await {
            if start.elapsed() > Duration::from_secs(PATIENCE_SECS) {
                let shown = self.text_of("body").await;
                panic!("it did not come to pass that {what}; the page shows:\n{shown}");
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Keeps a picture for whoever wants to look, below `target`.
    pub async fn picture(&self, name: &str) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pictures");
        std::fs::create_dir_all(&folder).expect("a folder for pictures");
        self.driver.screenshot(&folder.join(format!("{name}.png"))).await.expect("a picture");
    }
}
