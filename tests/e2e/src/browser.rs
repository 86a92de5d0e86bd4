//! A real browser that opens a page, driven over Chromium's DevTools protocol.
//!
//! The protocol is spoken over the pipe that Chromium offers for it: a JSON message and a NUL, in
//! either direction. No port is opened, and no client library (an asynchronous runtime, generated
//! code for every domain of the protocol) is needed for the six calls that the tests make.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// The browser's program: `ALTAZ_CHROMIUM`, else Debian's.
const PROGRAM: &str = "chromium";
/// The longest that one answer may take, on a machine that does other things besides.
const PATIENCE: Duration = Duration::from_secs(120);

/// A browser with one page.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    last: u64,
    session: Option<String>,
    /// What the page complained about: exceptions, console errors, violations of its policy.
    complaints: Vec<String>,
    _home: tempfile::TempDir,
}

impl Browser {
    /// Opens a page of this width and waits until it is loaded.
    ///
    /// # Panics
    /// When there is no Chromium, or it does not open the page.
    pub fn open(page: &Path, width: u32) -> Self {
        Self::start(page, width, false)
    }

    /// The same for a reader who lets no page run scripts.
    ///
    /// # Panics
    /// As [`Self::open`].
    pub fn open_without_scripts(page: &Path, width: u32) -> Self {
        Self::start(page, width, true)
    }

    fn start(page: &Path, width: u32, without_scripts: bool) -> Self {
        let home = tempfile::tempdir().unwrap();
        let program = std::env::var_os("ALTAZ_CHROMIUM").unwrap_or_else(|| PROGRAM.into());
        // The protocol's pipe is descriptors 3 and 4.
        let mut child = crate::command("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 >/dev/null 2>&1"])
            .arg(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--remote-debugging-pipe", "--no-first-run", "--hide-scrollbars"])
            .arg(format!("--user-data-dir={}", home.path().display()))
            .arg(format!("--window-size={width},900"))
            .env("HOME", home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let (sender, from) = channel();
        std::thread::spawn(move || {
            for message in answers.split(0).map_while(Result::ok) {
                let parsed = serde_json::from_slice(&message);
                if parsed.is_ok_and(|m| sender.send(m).is_err()) {
                    break;
                }
            }
        });
        let (last, session, complaints) = (0, None, Vec::new());
        let mut browser = Self { child, to, from, last, session, complaints, _home: home };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let target = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", target);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.call("Performance.enable", json!({ "timeDomain": "threadTicks" }));
        let disabled = json!({ "value": without_scripts });
        browser.call("Emulation.setScriptExecutionDisabled", disabled);
        let url = format!("file://{}", page.canonicalize().unwrap().display());
        browser.call("Page.navigate", json!({ "url": url }));
        browser.wait_for("document.readyState === 'complete' && location.protocol === 'file:'");
        browser
    }

    /// The value of an expression in the page.
    ///
    /// # Panics
    /// When it throws.
    pub fn eval(&mut self, expression: &str) -> Value {
        let arguments =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", arguments);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer:#}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    ///
    /// # Panics
    /// When it is not after a while.
    pub fn wait_for(&mut self, expression: &str) {
        let begin = Instant::now();
        while self.eval(expression) != true {
            assert!(begin.elapsed() < PATIENCE, "never true: {expression}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Shows the page as readers with dark or light screens see it.
    pub fn dark(&mut self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": value }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// A picture of all elements that a selector finds, as PNG, with a pixel of it for so many of the
    /// page.
    ///
    /// # Panics
    /// When it finds none.
    pub fn picture(&mut self, selector: &str, scale: f64) -> Vec<u8> {
        let all = format!("[...document.querySelectorAll({})]", json!(selector));
        self.eval(&format!("{all}[0].scrollIntoView()"));
        // What is built when it comes near the screen is built now.
        let drawn = "new Promise(r => setTimeout(() => requestAnimationFrame(() => r(true)), 800))";
        self.eval(drawn);
        let mut clip = self.eval(&format!(
            "(rects => {{ \
                const x = Math.min(...rects.map(r => r.left)), y = Math.min(...rects.map(r => r.top)); \
                return {{ x: x + scrollX - 12, y: y + scrollY - 12, \
                    width: Math.max(...rects.map(r => r.right)) - x + 24, \
                    height: Math.max(...rects.map(r => r.bottom)) - y + 24 }} \
             }})({all}.map(e => e.getBoundingClientRect()))"
        ));
        clip["scale"] = scale.into();
        let arguments = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let answer = self.call("Page.captureScreenshot", arguments);
        STANDARD.decode(answer["data"].as_str().unwrap()).unwrap()
    }

    /// Presses a key (`Enter`, `Escape`, `ArrowRight`, `Tab`) on whatever has the focus.
    pub fn press(&mut self, key: &str) {
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            "Tab" => 9,
            "ArrowRight" => 39,
            _ => 0,
        };
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let mut event =
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Types a text into whatever has the focus.
    pub fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// What the page complained about so far.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// Seconds of processor time that the page's own thread has used.
    pub fn page_seconds(&mut self) -> f64 {
        let answer = self.call("Performance.getMetrics", json!({}));
        let metrics = answer["metrics"].as_array().unwrap();
        let of = |name: &str| metrics.iter().find(|m| m["name"] == name).unwrap()["value"].as_f64();
        of("TaskDuration").unwrap()
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let id = self.last;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut bytes = serde_json::to_vec(&message).unwrap();
        bytes.push(0);
        self.to
            .write_all(&bytes)
            .unwrap_or_else(|e| panic!("chromium is gone ({e}); scripts/setup.sh installs it"));
        self.to.flush().unwrap();
        loop {
            let answer = self.from.recv_timeout(PATIENCE).unwrap_or_else(|e| {
                panic!("chromium does not answer {method} ({e}); scripts/setup.sh installs it")
            });
            if answer["id"] == id {
                assert!(answer.get("error").is_none(), "{method}: {answer:#}");
                return answer["result"].clone();
            }
            self.note(&answer);
        }
    }

    /// Keeps what an event complains about.
    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        let bad = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => {
                matches!(params["type"].as_str(), Some("error" | "warning" | "assert"))
            }
            Some("Log.entryAdded") => {
                matches!(params["entry"]["level"].as_str(), Some("error" | "warning"))
            }
            _ => false,
        };
        if bad {
            self.complaints.push(params.to_string());
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let bye = b"{\"id\":0,\"method\":\"Browser.close\"}\0";
        let _ = self.to.write_all(bye);
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(10) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
