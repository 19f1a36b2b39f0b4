//! The web client in real browsers: what a person does and sees, in several regions, on a phone, and when a node dies.
//!
//! Needs Debian's packages `chromium` and `chromium-driver`:
//! `cargo test -p mychat --features browser --test browser`.

mod cluster;
#[path = "browser/driver.rs"]
mod driver;
#[path = "browser/page.rs"]
mod page;

use cluster::{Cluster, Process};
use driver::{Driver, Screen};
use fantoccini::key::Key;
use page::{Page, test};
use rustix::process::Signal;
use tempfile::TempDir;

const REGIONS: [&str; 3] = ["fra", "iad", "syd"];

/// `mychat dev` on ports of its own choice.
struct Dev {
    // The process goes before the folder that it works in.
    process: Process,
    _folder: TempDir,
}

impl Dev {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let process = Process::dev(0, &folder.path().join("data")).await;
        Self { process, _folder: folder }
    }

    /// The URL that it has printed for a region, or for the router.
    fn url(&self, name: &str) -> String {
        let said = self.process.stdout();
        let line = said.lines().find(|line| line.split_whitespace().next() == Some(name));
        let url = line.and_then(|line| line.split_whitespace().find(|word| word.starts_with("http://")));
        url.unwrap_or_else(|| panic!("no URL of {name}: {said}")).to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_in_two_regions_talk() {
    let (dev, driver) = (Dev::start().await, Driver::start());
    let ada = Page::new(&driver, "ada", Screen::Desktop).await;
    let grace = Page::new(&driver, "grace", Screen::Desktop).await;

    // The router leads to one of the nodes.
    ada.open(&dev.url("router")).await;
    ada.sees(&test("signup-form")).await;
    let led_to = ada.url().await;
    assert!(REGIONS.iter().any(|region| led_to.starts_with(&dev.url(region))), "{led_to}");

    // One signs up in Frankfurt, makes a space and writes.
    ada.open(&dev.url("fra")).await;
    ada.sign_up("Ada", "ada@example.org").await;
    let status = ada.is_live(&["fra"]).await;
    assert!(status.latency.parse().is_ok_and(|ms: u64| ms > 0), "{status:?}");
    for part in ["Live", "fra", &format!("{} ms", status.latency)] {
        assert!(status.text.contains(part), "{part}: {status:?}");
    }
    ada.make_space("Observatory", "private").await;
    ada.say("The sky is **clear** tonight").await;
    let first = ada.hears("The sky is clear tonight").await;
    ada.sees(&format!("{first} .body strong")).await;

    // The other follows a link in Sydney, reads it and answers; the answer is back in Frankfurt.
    let link = ada.invitation().await;
    let (_, token) = link.split_once("/#/invite/").unwrap_or_else(|| panic!("no invitation: {link}"));
    grace.open(&format!("{}/#/invite/{token}", dev.url("syd"))).await;
    grace.sign_up("Grace", "grace@example.org").await;
    grace.is_in("Observatory").await;
    grace.hears("The sky is clear tonight").await;
    grace.sees(&format!("{first} .body strong")).await;
    grace.is_live(&["syd"]).await;
    grace.say("Here the sun has just come up").await;
    ada.hears("Here the sun has just come up").await;
    ada.is_live(&["fra"]).await;

    // She edits her message with the keyboard; the change arrives.
    ada.key(&test("composer"), Key::Up).await;
    ada.fill(&test("editor"), "The sky is *cloudy* after all").await;
    ada.key(&test("editor"), Key::Enter).await;
    assert_eq!(grace.hears("The sky is cloudy after all (edited)").await, first);

    // A reaction and its end, and a deletion, arrive as well.
    let sun = grace.hears("the sun").await;
    ada.press_over(&sun, &test("react")).await;
    ada.press(&format!("{sun} .actions [data-emoji]")).await;
    grace.sees(&format!("{sun} {}", test("reaction"))).await;
    ada.press(&format!("{sun} {}", test("reaction"))).await;
    grace.no_longer_sees(&format!("{sun} {}", test("reaction"))).await;
    grace.press_over(&sun, &test("delete")).await;
    grace.press("dialog .danger").await;
    assert_eq!(ada.hears("This message was deleted.").await, sun);
    assert!(!ada.conversation().await.iter().any(|text| text.contains("the sun")));

    for page in [&ada, &grace] {
        page.has_a_clean_log(&[]).await;
    }
    driver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unread_is_counted_until_it_is_read_on_a_phone_too() {
    let (dev, driver) = (Dev::start().await, Driver::start());
    let ada = Page::new(&driver, "ada", Screen::Desktop).await;
    let grace = Page::new(&driver, "grace", Screen::Desktop).await;
    ada.open(&dev.url("fra")).await;
    ada.sign_up("Ada", "ada@example.org").await;
    ada.make_space("Observatory", "public").await;
    grace.open(&dev.url("syd")).await;
    grace.sign_up("Grace", "grace@example.org").await;

    // She finds the public space by herself and joins.
    grace.press(&test("browse-spaces")).await;
    grace.press(&test("join-space")).await;
    grace.is_in("Observatory").await;

    // While the other looks elsewhere, two messages are unread; they are read where they are seen.
    ada.make_space("Elsewhere", "private").await;
    grace.say("Is anybody there?").await;
    grace.say("Hello?").await;
    let badge = test("unread");
    ada.until(
        "two are unread",
        "document.querySelector(arguments[0])?.textContent === '2'",
        vec![badge.clone().into()],
    )
    .await;
    assert_eq!(ada.title().await, "(2) MyChat");
    ada.go_to("Observatory").await;
    ada.hears("Hello?").await;
    ada.sees(&test("new-line")).await;
    ada.no_longer_sees(&badge).await;
    ada.until("the title counts nothing", "document.title === 'MyChat'", vec![]).await;

    // The same account on a phone, in a third region: what was unread there is what is unread here.
    ada.go_to("Elsewhere").await;
    grace.say(&format!("A word without end: {}", "north".repeat(40))).await;
    let phone = Page::new(&driver, "phone", Screen::Phone).await;
    phone.open(&dev.url("iad")).await;
    phone.sees(&test("signup-form")).await;
    phone.fits("signing up").await;
    phone.sign_in("ada@example.org").await;
    phone.is_live(&["iad"]).await;
    phone
        .until(
            "one is unread",
            "document.querySelector(arguments[0])?.textContent === '1'",
            vec![badge.clone().into()],
        )
        .await;
    phone.fits("the list of spaces").await;
    phone.go_to("Observatory").await;
    phone.hears("A word without end").await;
    phone.fits("a space").await;
    phone.sees(&format!("{}[data-state=live][data-region=iad]", test("status-small"))).await;
    phone.press(&test("invite")).await;
    phone.sees(&test("invite-link")).await;
    phone.fits("inviting").await;
    phone.key("dialog", Key::Escape).await;
    phone.no_longer_sees("dialog").await;
    phone.press(&test("members")).await;
    phone.sees(&test("member")).await;
    phone.fits("the members").await;
    // Read on the phone, read on the desk.
    ada.no_longer_sees(&badge).await;

    for page in [&ada, &grace, &phone] {
        page.has_a_clean_log(&[]).await;
    }
    driver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_goes_on_in_another_region_when_its_node_is_killed() {
    let (mut cluster, driver) = (Cluster::start(&REGIONS).await, Driver::start());
    let ada = Page::new(&driver, "ada", Screen::Desktop).await;
    let grace = Page::new(&driver, "grace", Screen::Desktop).await;
    let (fra, syd) = (cluster.client(0).url, cluster.client(2).url);

    // She has opened the page by another name of this machine than the nodes have for themselves.
    let fra_as_opened = fra.replace("127.0.0.1", "localhost");
    ada.open(&fra_as_opened).await;
    ada.sign_up("Ada", "ada@example.org").await;
    ada.make_space("Observatory", "private").await;
    let link = ada.invitation().await;
    let (_, invitation) = link.split_once('#').unwrap_or_else(|| panic!("no invitation: {link}"));
    grace.open(&format!("{syd}/#{invitation}")).await;
    grace.sign_up("Grace", "grace@example.org").await;
    grace.is_in("Observatory").await;
    ada.say("before").await;
    grace.hears("before").await;
    ada.is_live(&["fra"]).await;
    grace.is_live(&["syd"]).await;
    // A page knows where else it can go as soon as it has looked around.
    ada.until(
        "three nodes are known",
        "JSON.parse(localStorage['mychat-nodes'] ?? '[]').length >= 3",
        vec![],
    )
    .await;

    // Frozen first, so that the node is sure to take nothing of this along when it dies.
    cluster.nodes[0].process().signal(Signal::STOP);
    let mut said = vec!["before".to_owned()];
    for count in 1..=5 {
        let text = format!("while nobody was home {count}");
        grace.say(&text).await;
        grace.hears(&text).await;
        said.push(text);
    }
    cluster.nodes[0].kill();
    ada.hears("while nobody was home 5").await;
    let status = ada.is_live(&["iad", "syd"]).await;
    ada.say("back again").await;
    said.push("back again".to_owned());
    grace.hears("back again").await;
    ada.hears("back again").await;
    for page in [&ada, &grace] {
        assert_eq!(page.conversation().await, said, "{status:?}");
    }
    // The page was not loaded anew.
    assert!(ada.url().await.starts_with(&fra_as_opened));

    ada.has_a_clean_log(&[&fra, &fra_as_opened]).await;
    grace.has_a_clean_log(&[&fra, &fra_as_opened]).await;
    driver.stop().await;
}
