//! Chromium and the program that steers it, started for one test and gone with it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::eventually;

/// What keeps Chromium to itself and to this test: no sandbox (a container has none to offer), no calls home.
const FLAGS: [&str; 10] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--lang=en-US",
];

/// A machine without a screen has no mouse, and pages can tell; a desktop has one (hover, and a fine pointer).
const MOUSE: &str =
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4";

/// A running `chromedriver` with the browsers that it has started. Dropping it ends them all.
pub struct Driver {
    child: Child,
    port: u16,
    chromium: PathBuf,
    folder: TempDir,
}

/// The screen that a browser pretends to have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Screen {
    Desktop,
    /// Small, and touched instead of clicked.
    Phone,
}

impl Driver {
    /// Starts the driver on a port of its own choice.
    pub fn start() -> Self {
        let (chromedriver, chromium) = (program("chromedriver"), program("chromium"));
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = Command::new(chromedriver)
            .arg("--port=0")
            // In a group of their own, so that the browsers end with the driver even if it can't end them any more.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
            line.rsplit_once("on port ")?.1.trim_end_matches('.').parse().ok().filter(|port| *port != 0)
        });
        // Whatever else it says must not fill the pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let port = port.expect("chromedriver says on which port it listens");
        Self { child, port, chromium, folder }
    }

    /// Opens a browser of its own, with nothing kept from any other. `name` is the name of its folder.
    pub async fn browser(&self, name: &str, screen: Screen) -> Client {
        let profile = self.folder.path().join(name);
        let mut args: Vec<String> = FLAGS.map(str::to_owned).to_vec();
        args.push(format!("--user-data-dir={}", profile.display()));
        if screen == Screen::Desktop {
            args.extend(["--window-size=1280,800".to_owned(), MOUSE.to_owned()]);
        }
        let mut options = json!({ "binary": self.chromium, "args": args });
        if screen == Screen::Phone {
            let metrics =
                json!({ "width": 390, "height": 760, "pixelRatio": 2.0, "touch": true, "mobile": true });
            options["mobileEmulation"] = json!({ "deviceMetrics": metrics });
        }
        let Value::Object(wanted) =
            json!({ "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } })
        else {
            unreachable!("it is written as an object")
        };
        ClientBuilder::new(HttpConnector::new())
            .capabilities(wanted)
            .connect(&self.url())
            .await
            .unwrap_or_else(|error| panic!("chromium does not start: {error}"))
    }

    /// Where the driver takes commands.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Asks the driver to end all browsers and itself, and waits for that.
    pub async fn stop(mut self) {
        shut_down(self.port);
        eventually("chromedriver ends", async || self.child.try_wait().expect("a child").map(drop)).await;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            shut_down(self.port);
            let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
            // It may have ended just now.
            let _ = group.map(|group| kill_process_group(group, Signal::KILL));
            let _ = self.child.wait();
        }
    }
}

/// Tells the driver to end its browsers; it answers once that is done.
fn shut_down(port: u16) {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return };
    let request = format!("GET /shutdown HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    // Without an answer the caller goes on to harder means.
    let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.read(&mut [0; 512]));
}

/// Finds a program of Debian's packages.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file()).unwrap_or_else(|| {
        panic!("there is no `{name}` on the PATH; this test needs it: apt-get install chromium chromium-driver")
    })
}
