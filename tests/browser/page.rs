//! The web client in a browser, as a person uses it: by looking, clicking and typing.
//!
//! Elements are named by their `data-test` attribute. Every wait looks again and again until a deadline, and says in
//! the end what the page showed instead.

use std::time::{Duration, Instant};

use fantoccini::{
    Client, Locator,
    actions::{InputSource, MouseActions, PointerAction},
    elements::Element,
    error::CmdError,
    key::Key,
};
use serde_json::{Value, json};

use crate::{
    cluster::{PATIENCE, POLL},
    driver::{Driver, Screen},
};

/// A page of one person.
pub struct Page {
    browser: Client,
    driver: String,
    name: String,
}

/// What the status line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub state: String,
    pub region: String,
    /// In milliseconds, as shown; empty while it is not known.
    pub latency: String,
    pub text: String,
}

/// A selector of the element with this `data-test`.
pub fn test(name: &str) -> String {
    format!("[data-test={name}]")
}

impl Page {
    /// A page in a browser of its own; nothing is open in it yet.
    pub async fn new(driver: &Driver, name: &str, screen: Screen) -> Self {
        let browser = driver.browser(name, screen).await;
        Self { browser, driver: driver.url(), name: name.to_owned() }
    }

    pub async fn open(&self, url: &str) {
        self.browser.goto(url).await.unwrap_or_else(|error| panic!("{url} does not open: {error}"));
    }

    pub async fn url(&self) -> String {
        self.browser.current_url().await.expect("a page").to_string()
    }

    pub async fn title(&self) -> String {
        self.browser.title().await.expect("a page")
    }

    /// What an expression gives in the page; `args` are its `arguments`.
    pub async fn value(&self, expression: &str, args: Vec<Value>) -> Value {
        let script = format!("return ({expression});");
        self.browser.execute(&script, args).await.unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    /// Tries until it works out.
    pub async fn eventually<T>(&self, what: &str, mut attempt: impl AsyncFnMut(&Client) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = attempt(&self.browser).await {
                return found;
            }
            if Instant::now() > deadline {
                let shown = self.value("document.body.innerText", vec![]).await;
                let log = self.log().await;
                panic!("{} waits in vain: {what}\nthe page: {shown}\nits log: {log:?}", self.name);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until an expression holds.
    pub async fn until(&self, what: &str, expression: &str, args: Vec<Value>) {
        self.eventually(what, async |_| {
            (self.value(&format!("Boolean({expression})"), args.clone()).await == json!(true)).then_some(())
        })
        .await;
    }

    /// Waits for an element.
    pub async fn sees(&self, selector: &str) {
        self.until(selector, "document.querySelector(arguments[0])", vec![json!(selector)]).await;
    }

    /// Waits until there is no such element.
    pub async fn no_longer_sees(&self, selector: &str) {
        let what = format!("no {selector}");
        self.until(&what, "!document.querySelector(arguments[0])", vec![json!(selector)]).await;
    }

    /// The text of all such elements.
    pub async fn texts(&self, selector: &str) -> Vec<String> {
        let all = "[...document.querySelectorAll(arguments[0])].map((element) => element.innerText.trim())";
        let texts = self.value(all, vec![json!(selector)]).await;
        serde_json::from_value(texts).expect("a list of texts")
    }

    /// Does something with an element that may not be there, or not be ready for it, at first.
    async fn act(&self, what: &str, selector: &str, act: impl AsyncFn(&Element) -> Result<(), CmdError>) {
        self.eventually(&format!("{what} {selector}"), async |browser| {
            let element = browser.find(Locator::Css(selector)).await.ok()?;
            act(&element).await.ok()
        })
        .await;
    }

    pub async fn press(&self, selector: &str) {
        self.act("press", selector, Element::click).await;
    }

    /// Writes into a field instead of what is in it.
    pub async fn fill(&self, selector: &str, text: &str) {
        self.act("find", selector, async |field: &Element| {
            field.clear().await?;
            field.send_keys(text).await
        })
        .await;
        let exact = "document.querySelector(arguments[0])?.value === arguments[1]";
        self.until("the field has the text", exact, vec![json!(selector), json!(text)]).await;
    }

    pub async fn key(&self, selector: &str, key: Key) {
        let key = String::from(char::from(key));
        self.act("find", selector, async |field: &Element| field.send_keys(&key).await).await;
    }

    pub async fn choose(&self, selector: &str, value: &str) {
        self.act("choose in", selector, async |list: &Element| list.select_by_value(value).await).await;
    }

    /// Moves the mouse over an element, which shows what can be done with it, and presses one of these buttons. Both
    /// are tried again together: the element may move on while it is aimed at.
    pub async fn press_over(&self, selector: &str, button: &str) {
        let pressed = format!("{selector} {button}");
        self.act("press, with the mouse over it,", selector, async |element: &Element| {
            let over = PointerAction::MoveToElement {
                element: element.clone(),
                duration: Some(Duration::ZERO),
                x: 0.0,
                y: 0.0,
            };
            self.browser.perform_actions(MouseActions::new("mouse".to_owned()).then(over)).await?;
            self.browser.find(Locator::Css(&pressed)).await?.click().await
        })
        .await;
    }

    /// What the status line says at this moment.
    pub async fn status(&self) -> Status {
        let read = "(({ dataset, innerText }) => ({ ...dataset, innerText }))(document.querySelector('[data-test=status]'))";
        let said = self.value(read, vec![]).await;
        let word = |key: &str| said[key].as_str().unwrap_or_default().to_owned();
        Status {
            state: word("state"),
            region: word("region"),
            latency: word("latency"),
            text: word("innerText"),
        }
    }

    /// Waits until the events come in, from a node of one of the regions.
    pub async fn is_live(&self, regions: &[&str]) -> Status {
        self.sees(&test("status")).await;
        self.eventually(&format!("live in one of {regions:?}"), async |_| {
            let status = self.status().await;
            let there = regions.contains(&status.region.as_str());
            (status.state == "live" && there && !status.latency.is_empty()).then_some(status)
        })
        .await
    }

    /// What is severe in the log of the browser's console since the last look.
    pub async fn log(&self) -> Vec<String> {
        let session = self.browser.session_id().await.expect("a session").expect("a session");
        let asked = reqwest::Client::builder().no_proxy().build().expect("a client");
        let asked = asked
            .post(format!("{}/session/{session}/se/log", self.driver))
            .json(&json!({ "type": "browser" }));
        let answer: Value = asked.send().await.expect("an answer").json().await.expect("a log");
        let entries = answer["value"].as_array().unwrap_or_else(|| panic!("no log: {answer}"));
        let severe = entries.iter().filter(|entry| entry["level"] == "SEVERE");
        severe.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Asserts that the console has no errors but those expected of a page: the question who is signed in, whose
    /// answer is "nobody" at first, and calls to nodes that have been killed.
    pub async fn has_a_clean_log(&self, killed: &[&str]) {
        let mut log = self.log().await;
        log.retain(|line| !(line.contains("/v1/accounts/me") && line.contains("401")));
        log.retain(|line| !killed.iter().any(|url| line.contains(url) && line.contains("net::ERR_")));
        assert!(log.is_empty(), "errors in the console of {}: {log:#?}", self.name);
    }

    /// Asserts that nothing is wider than the screen.
    pub async fn fits(&self, what: &str) {
        let widths = self.value("[document.documentElement.scrollWidth, innerWidth]", vec![]).await;
        let (content, screen) = (widths[0].as_i64(), widths[1].as_i64());
        assert!(content.is_some() && content <= screen, "{what}: {content:?} of {screen:?} pixels");
    }
}

/// The conversation.
impl Page {
    pub async fn sign_up(&self, name: &str, email: &str) {
        self.form("signup-form", &[("name", name), ("email", email), ("password", PASSWORD)]).await;
        self.sees(&test("space-list")).await;
    }

    pub async fn sign_in(&self, email: &str) {
        self.press(&test("switch-to-signin")).await;
        self.form("signin-form", &[("email", email), ("password", PASSWORD)]).await;
        self.sees(&test("space-list")).await;
    }

    /// Fills in a form and sends it.
    pub async fn form(&self, form: &str, fields: &[(&str, &str)]) {
        for (field, text) in fields {
            self.fill(&format!("{} [name={field}]", test(form)), text).await;
        }
        self.press(&format!("{} [type=submit]", test(form))).await;
    }

    /// Makes a space and waits until it is open.
    pub async fn make_space(&self, name: &str, visibility: &str) {
        self.press(&test("new-space")).await;
        self.choose(&format!("{} [name=visibility]", test("new-space-form")), visibility).await;
        self.form("new-space-form", &[("name", name)]).await;
        self.is_in(name).await;
    }

    /// Waits until the space is open.
    pub async fn is_in(&self, name: &str) {
        let open = "document.querySelector('.space-title')?.textContent === arguments[0]";
        self.until(&format!("{name:?} is open"), open, vec![json!(name)]).await;
    }

    /// Opens a space from the list.
    pub async fn go_to(&self, name: &str) {
        let find = "[...document.querySelectorAll('[data-test=space-item]')]
            .find((item) => item.querySelector('.space-name').textContent === arguments[0])";
        self.until(&format!("{name:?} is in the list"), find, vec![json!(name)]).await;
        let id = self.value(&format!("{find}.dataset.space"), vec![json!(name)]).await;
        self.press(&format!("[data-space='{}']", id.as_str().expect("an id"))).await;
        self.is_in(name).await;
    }

    /// Writes a message and sends it.
    pub async fn say(&self, text: &str) {
        self.fill(&test("composer"), text).await;
        self.key(&test("composer"), Key::Enter).await;
    }

    /// Waits for a sent message with the text, and gives a selector for it.
    pub async fn hears(&self, text: &str) -> String {
        let find = "[...document.querySelectorAll('[data-test=message][data-state=sent]')]
            .find((message) => message.querySelector('.body')?.innerText.includes(arguments[0]))";
        self.until(&format!("a message {text:?}"), find, vec![json!(text)]).await;
        let id = self.value(&format!("{find}?.dataset.message"), vec![json!(text)]).await;
        format!("[data-message='{}']", id.as_str().expect("it does not go away"))
    }

    /// The texts of all sent messages that are in the page.
    pub async fn conversation(&self) -> Vec<String> {
        self.texts("[data-test=message][data-state=sent] .body").await
    }

    /// Makes a link to the open space, and closes the dialog again.
    pub async fn invitation(&self) -> String {
        self.press(&test("invite")).await;
        let link = "document.querySelector('[data-test=invite-link]')?.value";
        self.until("a link", link, vec![]).await;
        let link = self.value(link, vec![]).await;
        self.key("dialog", Key::Escape).await;
        self.no_longer_sees("dialog").await;
        link.as_str().expect("a link").to_owned()
    }
}

const PASSWORD: &str = "correct horse battery staple";
