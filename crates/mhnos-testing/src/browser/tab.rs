//! One tab: its scripts, its keys, its pictures.
//!
//! Each tab has a DevTools connection of its own; when that closes, the browser throws its context away. What a page does by
//! itself is waited for inside the page (`evaluate` waits for a promise), never by asking again and again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::Browser;

/// Longest wait for an answer of the browser, a page's own waiting included. Reached on failure only.
const DEADLINE: Duration = Duration::from_mins(1);
/// The size of a page, in CSS pixels.
const SIZE: (u32, u32) = (1000, 640);

/// A tab. Dropping it closes it, and with the last of its context everything the pages stored.
#[derive(Debug)]
pub struct Tab {
    socket: WebSocketStream<TcpStream>,
    session: String,
    context: String,
    calls: u64,
    browser: Arc<Browser>,
}

/// A key that is not a character, or one with Ctrl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Enter
    Enter,
    /// Backspace
    Backspace,
    /// Ctrl with a letter, given in lower case.
    Ctrl(char),
}

impl Tab {
    /// Opens a page in a context of its own and waits until it has loaded.
    pub async fn open(browser: &Arc<Browser>, url: &str) -> Self {
        let mut tab = Self::connect(Arc::clone(browser)).await;
        let context = tab.browser_call("Target.createBrowserContext", json!({"disposeOnDetach": true})).await;
        tab.context = text(&context["browserContextId"]);
        tab.load(url).await;
        tab
    }

    /// Opens another page in the same context, as a second tab of the same person. The first must live as long.
    pub async fn open_beside(&self, url: &str) -> Self {
        let mut tab = Self::connect(Arc::clone(&self.browser)).await;
        tab.context.clone_from(&self.context);
        tab.load(url).await;
        tab
    }

    async fn connect(browser: Arc<Browser>) -> Self {
        let address = browser.endpoint().trim_start_matches("ws://").split('/').next().unwrap_or_default();
        let stream = TcpStream::connect(address).await.expect("the browser listens");
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let (socket, _) = client_async_with_config(browser.endpoint(), stream, Some(config))
            .await
            .expect("the browser speaks WebSocket");
        Self { socket, session: String::new(), context: String::new(), calls: 0, browser }
    }

    async fn load(&mut self, url: &str) {
        let (width, height) = SIZE;
        let page = json!({
            "url": "about:blank", "browserContextId": self.context, "newWindow": true, "width": width, "height": height
        });
        let target = self.browser_call("Target.createTarget", page).await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = self.browser_call("Target.attachToTarget", attach).await;
        self.session = text(&attached["sessionId"]);
        self.call("Page.enable", json!({})).await;
        self.call("Emulation.setFocusEmulationEnabled", json!({"enabled": true})).await;
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", metrics).await;
        self.call("Page.navigate", json!({"url": url})).await;
        self.event("Page.loadEventFired").await;
    }

    /// Loads the page again.
    pub async fn reload(&mut self) {
        self.call("Page.reload", json!({})).await;
        self.event("Page.loadEventFired").await;
    }

    /// The value of an expression, or of the promise that it gives. Panics with the page's own words if it throws.
    pub async fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut answer = self.call("Runtime.evaluate", parameters).await;
        let thrown = &answer["exceptionDetails"]["exception"];
        let words = thrown["description"].as_str().or(thrown.as_str()).unwrap_or_default();
        assert!(thrown.is_null(), "{expression}: {words}");
        answer["result"]["value"].take()
    }

    /// Presses and releases a key.
    pub async fn press(&mut self, key: Key) {
        let (name, code, number, modifiers, character) = match key {
            Key::Enter => ("Enter".to_owned(), "Enter".to_owned(), 13, 0, Some("\r".to_owned())),
            Key::Backspace => ("Backspace".to_owned(), "Backspace".to_owned(), 8, 0, None),
            Key::Ctrl(letter) => {
                let upper = letter.to_ascii_uppercase();
                (letter.to_string(), format!("Key{upper}"), upper as u32, 2, None)
            }
        };
        self.key_event("keyDown", &name, &code, number, modifiers, character.as_deref()).await;
        self.key_event("keyUp", &name, &code, number, modifiers, None).await;
    }

    /// Types characters, each with a key of its own.
    pub async fn type_keys(&mut self, text: &str) {
        for character in text.chars() {
            let name = character.to_string();
            self.key_event("keyDown", &name, "", 0, 0, Some(&name)).await;
            self.key_event("keyUp", &name, "", 0, 0, None).await;
        }
    }

    /// Puts text in as an input method does (emoji, CJK).
    pub async fn insert_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// Takes a picture of the page, into a PNG file.
    pub async fn screenshot(&mut self, file: &Path) {
        let picture = self.call("Page.captureScreenshot", json!({"format": "png"})).await;
        let bytes = decode_base64(picture["data"].as_str().expect("a picture"));
        let directory = file.parent().expect("a file in a directory");
        std::fs::create_dir_all(directory)
            .and_then(|()| std::fs::write(file, bytes))
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
    }

    async fn key_event(
        &mut self,
        kind: &str,
        key: &str,
        code: &str,
        number: u32,
        modifiers: u32,
        text: Option<&str>,
    ) {
        let mut event = json!({
            "type": kind, "key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": modifiers
        });
        if let Some(text) = text {
            event["text"] = text.into();
        }
        self.call("Input.dispatchKeyEvent", event).await;
    }

    async fn browser_call(&mut self, method: &str, parameters: Value) -> Value {
        self.exchange(json!({"method": method, "params": parameters})).await
    }

    async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.exchange(json!({"method": method, "params": parameters, "sessionId": self.session})).await
    }

    async fn exchange(&mut self, mut request: Value) -> Value {
        self.calls += 1;
        request["id"] = self.calls.into();
        self.socket.send(Message::text(request.to_string())).await.expect("the browser reads");
        let (calls, what) = (self.calls, request);
        let mut answer = self.until(|message| message["id"] == calls, &what.to_string()).await;
        assert!(answer["error"].is_null(), "{what}: {}", answer["error"]);
        answer["result"].take()
    }

    async fn event(&mut self, method: &str) {
        self.until(|message| message["method"] == method, method).await;
    }

    async fn until(&mut self, wanted: impl Fn(&Value) -> bool, what: &str) -> Value {
        let messages = async {
            loop {
                let message =
                    self.socket.next().await.expect("the browser lives").expect("the browser answers");
                let Message::Text(text) = message else { continue };
                let value: Value = serde_json::from_str(&text).expect("DevTools speak JSON");
                if wanted(&value) {
                    return value;
                }
            }
        };
        timeout(DEADLINE, messages).await.unwrap_or_else(|_| panic!("nothing within {DEADLINE:?}: {what}"))
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a string, not {value}")).to_owned()
}

/// The standard alphabet with padding, as DevTools write it.
fn decode_base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let word = group.iter().fold(0_u32, |word, byte| word << 6 | u32::from(digit(*byte)));
        let word = word << (6 * (4 - group.len()));
        bytes.extend_from_slice(&word.to_be_bytes()[1..group.len()]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::decode_base64;

    #[test]
    fn base64_of_every_length_is_read() {
        let check = |text: &str, bytes: &[u8]| assert_eq!(decode_base64(text), bytes, "{text}");
        check("", b"");
        check("TQ==", b"M");
        check("TWE=", b"Ma");
        check("TWFu", b"Man");
        check("//79", &[0xff, 0xfe, 0xfd]);
    }
}
