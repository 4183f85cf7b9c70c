//! A real browser without a window, driven by WebDriver: Chromium, by Debian's chromedriver.
//!
//! It owns the browser's life, which ends with the test however that ends, and knows as much of the protocol as tests need.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::http::Answer;
use crate::processes::{Process, find, installed};
use crate::{PATIENCE, await_within};

/// The programs that it needs.
const PROGRAMS: [&str; 2] = ["chromium", "chromedriver"];

/// The key by which WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// The version of axe-core that judges accessibility.
const AXE: &str = "axe-core@4.14.1";

/// A browser with one page.
#[derive(Debug)]
pub struct Browser {
    driver: Process,
    address: SocketAddr,
    session: String,
}

/// Keys, as WebDriver writes them.
pub mod keys {
    /// Tab.
    pub const TAB: &str = "\u{e004}";
    /// Arrow to the left.
    pub const LEFT: &str = "\u{e012}";
    /// Arrow to the right.
    pub const RIGHT: &str = "\u{e014}";
    /// Enter.
    pub const ENTER: &str = "\u{e007}";
}

impl Browser {
    /// Starts it; `None` where it is not installed, and then `test` is written down as skipped.
    #[track_caller]
    pub fn start(test: &str) -> Option<Self> {
        if !installed(test, &PROGRAMS) {
            return None;
        }
        let driver = Process::start("chromedriver", |folder| {
            let mut command = Command::new(find("chromedriver").expect("it is installed"));
            // What it leaves behind goes with the folder, and nothing of a user's own is read.
            command
                .arg("--port=0")
                .env("HOME", folder)
                .env("TMPDIR", folder);
            command
        });
        let port = await_within(PATIENCE * 4, "chromedriver's port", || {
            let log = driver.log();
            let (_, rest) = log.split_once("successfully on port ")?;
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            rest.contains('\n').then(|| digits.parse::<u16>().ok())?
        });
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let profile = driver.folder().join("profile");
        let arguments = [
            "--headless=new",
            // A browser in a container has no sandbox of its own to make, and it sees no page but ours.
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--lang=en",
            "--hide-scrollbars",
            // It ends with the driver, whatever ends that.
            "--remote-debugging-pipe",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let mut browser = Self {
            driver,
            address,
            session: String::new(),
        };
        let opened = browser.ask(
            "POST",
            "/session",
            &json!({"capabilities": {"alwaysMatch": {
                "goog:loggingPrefs": {"browser": "ALL"},
                "goog:chromeOptions": {"binary": find("chromium"), "args": arguments},
            }}}),
        );
        let session = opened["sessionId"].as_str().expect("a session has an id");
        session.clone_into(&mut browser.session);
        Some(browser)
    }

    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if method == "GET" || method == "DELETE" {
            String::new()
        } else {
            body.to_string()
        };
        let answer = exchange(self.address, method, path, &body).unwrap_or_else(|error| {
            panic!("chromedriver does not answer {method} {path}: {error}")
        });
        let mut value: Value = serde_json::from_str(&answer.body)
            .unwrap_or_else(|error| panic!("chromedriver answers no JSON ({error}): {answer:?}"));
        assert_eq!(answer.status, 200, "{method} {path} {body:.300}: {value:#}");
        value["value"].take()
    }

    #[track_caller]
    fn tell(&self, command: &str, body: &Value) -> Value {
        self.ask(
            "POST",
            &format!("/session/{}/{command}", self.session),
            body,
        )
    }

    /// Opens a page.
    #[track_caller]
    pub fn open(&self, url: &str) {
        self.tell("url", &json!({"url": url}));
    }

    /// Runs a function's body in the page, and returns what it returns.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.tell("execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until an expression in the page is true.
    #[track_caller]
    pub fn await_true(&self, what: &str, expression: &str) {
        let script = format!("return Boolean({expression});");
        await_within(PATIENCE * 4, what, || {
            (self.run(&script) == Value::Bool(true)).then_some(())
        });
    }

    /// The text of the element that this selector finds.
    #[track_caller]
    pub fn text(&self, selector: &str) -> String {
        let script = format!(
            "return document.querySelector({}).textContent;",
            json!(selector)
        );
        self.run(&script).as_str().unwrap_or_default().to_owned()
    }

    /// Types keys, one after the other, where the focus is.
    #[track_caller]
    pub fn press(&self, keys: &[&str]) {
        let actions: Vec<Value> = keys
            .iter()
            .flat_map(|key| {
                [
                    json!({"type": "keyDown", "value": key}),
                    json!({"type": "keyUp", "value": key}),
                ]
            })
            .collect();
        self.tell(
            "actions",
            &json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}),
        );
    }

    /// Clicks the element that this selector finds.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        let found = self.tell(
            "element",
            &json!({"using": "css selector", "value": selector}),
        );
        let element = found[ELEMENT].as_str().expect("an element has an id");
        self.tell(&format!("element/{element}/click"), &json!({}));
    }

    #[track_caller]
    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.tell(
            "goog/cdp/execute",
            &json!({"cmd": command, "params": parameters}),
        )
    }

    /// Makes the window so many CSS pixels large.
    #[track_caller]
    pub fn resize(&self, width: u32, height: u32) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Has the user prefer these, such as `("prefers-color-scheme", "dark")`.
    #[track_caller]
    pub fn prefer(&self, features: &[(&str, &str)]) {
        let features: Vec<Value> = features
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        self.devtools("Emulation.setEmulatedMedia", &json!({"features": features}));
    }

    /// A picture of the window as PNG.
    #[track_caller]
    pub fn picture(&self, path: &Path) {
        let shot = self.devtools("Page.captureScreenshot", &json!({"format": "png"}));
        let text = shot["data"].as_str().expect("a picture in base64");
        fs::write(path, decode(text)).expect("a picture can be written");
    }

    /// What the page's console said since this was asked last: level and message.
    #[track_caller]
    pub fn console(&self) -> Vec<(String, String)> {
        let lines = self.tell("se/log", &json!({"type": "browser"}));
        let lines = lines.as_array().cloned().unwrap_or_default().into_iter();
        let text = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_owned();
        lines
            .map(|line| (text(&line, "level"), text(&line, "message")))
            .collect()
    }

    /// Whether the page is wider than its window.
    #[track_caller]
    pub fn scrolls_sideways(&self) -> bool {
        let script =
            "return document.documentElement.scrollWidth > document.documentElement.clientWidth;";
        self.run(script) == Value::Bool(true)
    }

    /// What axe-core calls serious or critical on the page, a line for each; empty is well.
    #[track_caller]
    pub fn judge_accessibility(&self, axe: &str) -> Vec<String> {
        self.run(&format!("{axe}\nreturn typeof axe;"));
        let script = "return axe.run(document, {resultTypes: ['violations']}).then((found) => found.violations.map((one) => \
             [one.impact, `${one.id}: ${one.help}: ${one.nodes.map((node) => node.html + ' ' + node.failureSummary).join(' | ')}`]));";
        let found = self.run(script);
        let found = found.as_array().expect("axe-core gives a list").iter();
        let bad = found.filter(|one| matches!(one[0].as_str(), Some("serious" | "critical")));
        bad.map(|one| one[1].to_string()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if self.session.is_empty() {
            return;
        }
        // The browser closes its files in order; its pipe would end it as well.
        let path = format!("/session/{}", self.session);
        let _ = exchange(self.address, "DELETE", &path, "");
        let _ = self.driver.ended();
    }
}

/// One request by HTTP/1.1, which chromedriver insists on; its answers tell their length.
fn exchange(address: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    // A browser starts slowly on a busy machine.
    stream.set_read_timeout(Some(PATIENCE * 4))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    let mut stream = BufReader::new(stream);
    let (mut status, mut length) = (0, 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(rest) = line.strip_prefix("http/1.1 ") {
            status = rest
                .split(' ')
                .next()
                .and_then(|s| s.parse().ok())
                .unwrap_or(0);
        } else if let Some(rest) = line.strip_prefix("content-length:") {
            length = rest.trim().parse().map_err(io::Error::other)?;
        } else if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(Answer { status, body })
}

/// axe-core's script, by npm from its registry; kept for the next time. The error says why it cannot be had.
pub fn axe() -> Result<String, String> {
    let home = std::env::var_os("HOME").ok_or("there is no home folder to keep it in")?;
    let kept = PathBuf::from(home).join(".cache/ringside/npm").join(AXE);
    let script = kept.join("package/axe.min.js");
    if let Ok(text) = fs::read_to_string(&script) {
        return Ok(text);
    }
    let npm = find("npm").ok_or("npm is not installed")?;
    fs::create_dir_all(&kept).map_err(|error| error.to_string())?;
    let folder = tempfile::tempdir_in(&kept).map_err(|error| error.to_string())?;
    let mut command = Command::new(npm);
    command
        .args(["pack", "--silent", AXE])
        .current_dir(folder.path());
    let packed = command.output().map_err(|error| error.to_string())?;
    if !packed.status.success() {
        let said = String::from_utf8_lossy(&packed.stderr)
            .trim()
            .replace('\n', " ");
        return Err(format!("npm pack {AXE} failed: {said}"));
    }
    let name = String::from_utf8_lossy(&packed.stdout).trim().to_owned();
    let mut command = Command::new("tar");
    command.args(["-xzf", &name]).current_dir(folder.path());
    command.status().map_err(|error| error.to_string())?;
    // At once, as other tests may do the same.
    let _ = fs::rename(folder.path().join("package"), kept.join("package"));
    fs::read_to_string(&script).map_err(|error| format!("{}: {error}", script.display()))
}

/// What base64 says.
fn decode(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0, 0_u32);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        held = (held << 6 | u32::from(value(byte))) & 0xff_ffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read() {
        assert_eq!(decode("aGVsbG8="), b"hello");
        assert_eq!(decode("//79"), [255, 254, 253]);
    }
}
