//! A person at the page: a service, the page in a tab, and what the person does and sees.

use std::path::{Path, PathBuf};

use mhnos_testing::{Browser, Options, Server, Site, Tab};
use serde_json::{Value, json};

use crate::{golden, options};

/// A service and a page that is connected to it.
pub(crate) struct Desk {
    pub(crate) server: Server,
    pub(crate) tab: Tab,
    url: String,
    placed: golden::Placed,
    _site: Site,
}

impl Desk {
    pub(crate) async fn open() -> Self {
        Self::open_with(options()).await
    }

    pub(crate) async fn open_with(options: Options) -> Self {
        Self::open_in(options, &[]).await
    }

    /// The same, with files that stand in the workspace before.
    pub(crate) async fn open_in(options: Options, files: &[(&str, &[u8])]) -> Self {
        let server = Server::start(options);
        for (path, content) in files {
            server.write(path, content);
        }
        let placed = files.iter().map(|(path, content)| ((*path).to_owned(), json!(content))).collect();
        let root = repository().join("clients/typescript/web-os-page");
        assert!(
            root.join("node_modules/@xterm/xterm").is_dir(),
            "the page's packages are missing; to install them: deploy/tools/install test"
        );
        let site = Site::serve(root);
        let url = format!("{}/?runtime=ws://localhost:{}/", site.origin(), server.address().port());
        let tab = Tab::open(&Browser::shared(), &url).await;
        let mut desk = Self { server, tab, url, placed, _site: site };
        desk.until("os.hud.some(({text}) => text.startsWith('[Runtime] Protocol v'))").await;
        desk
    }

    /// A second tab of the same person.
    pub(crate) async fn second_tab(&self) -> Tab {
        let mut tab = self.tab.open_beside(&self.url).await;
        until(&mut tab, "os.hud.some(({text}) => text.startsWith('[Runtime] Protocol v'))").await;
        tab
    }

    /// Types a line into the HUD; what it draws.
    pub(crate) async fn command(&mut self, line: &str) -> Vec<String> {
        command(&mut self.tab, line).await
    }

    /// The same for a command that must work.
    pub(crate) async fn done(&mut self, line: &str) -> Vec<String> {
        let lines = self.command(line).await;
        assert!(!lines.iter().any(|line| line.starts_with("ERROR")), "{line}: {lines:?}");
        lines
    }

    /// Starts something from the HUD; its pid.
    pub(crate) async fn start(&mut self, line: &str) -> u64 {
        let lines = self.done(line).await;
        let pid = lines[0].split(' ').nth(1).and_then(|pid| pid.parse().ok());
        pid.unwrap_or_else(|| panic!("{line}: {lines:?}"))
    }

    /// Waits until an expression over `os` is true.
    pub(crate) async fn until(&mut self, condition: &str) -> Value {
        until(&mut self.tab, condition).await
    }

    /// Waits until a window shows a text.
    pub(crate) async fn shows(&mut self, window: usize, text: &str) {
        self.until(&format!("os.windows[{window}].text.includes({})", json!(text))).await;
    }

    /// Waits until the HUD has drawn a line of that kind with a text in it.
    pub(crate) async fn draws(&mut self, kind: &str, text: &str) {
        let (kind, text) = (json!(kind), json!(text));
        self.until(&format!("os.hud.some((line) => line.kind === {kind} && line.text.includes({text}))"))
            .await;
    }

    /// Waits until a window has its real size (24).
    pub(crate) async fn fitted(&mut self, window: usize) {
        self.until(&format!("os.windows[{window}].fitted")).await;
    }

    /// Puts a file into the page's own file system.
    pub(crate) async fn save(&mut self, path: &str, content: &[u8]) {
        let write = format!("os.files.write({}, new Uint8Array({}))", json!(path), json!(content));
        self.tab.evaluate(&write).await;
    }

    /// A file of the page's own file system.
    pub(crate) async fn saved(&mut self, path: &str) -> Vec<u8> {
        let content = self.tab.evaluate(&format!("os.files.read({})", json!(path))).await;
        let bytes = content.as_array().expect("an array").iter();
        bytes.map(|byte| u8::try_from(byte.as_u64().expect("a number")).expect("a byte")).collect()
    }

    /// Every frame so far, `{"send": …}` or `{"receive": …}`.
    pub(crate) async fn frames(&mut self) -> Vec<Value> {
        let frames = self.tab.evaluate("JSON.stringify(os.bridge.frames)").await;
        serde_json::from_str(frames.as_str().expect("a text")).expect("frames are JSON")
    }

    /// Compares what went over the wire with a golden transcript.
    pub(crate) async fn is_golden(&mut self, name: &str) {
        let frames = self.frames().await;
        golden::check(name, &self.placed, frames);
    }

    /// Keeps a picture of the page for people.
    pub(crate) async fn picture(&mut self, name: &str) {
        self.tab.screenshot(&repository().join("artifacts/web-os").join(format!("{name}.png"))).await;
    }
}

pub(crate) async fn command(tab: &mut Tab, line: &str) -> Vec<String> {
    let lines = tab.evaluate(&format!("os.command({})", json!(line))).await;
    let lines = lines.as_array().expect("lines").iter();
    lines.map(|line| line.as_str().expect("a line").to_owned()).collect()
}

pub(crate) async fn until(tab: &mut Tab, condition: &str) -> Value {
    tab.evaluate(&format!("os.until(() => {condition})")).await
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("two deep").to_owned()
}
