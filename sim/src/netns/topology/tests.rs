//! Topologies, good and bad.

use proptest::prelude::*;

use super::*;
use crate::netns::units::{Bandwidth, Bytes, Loss};

fn parse(text: &str) -> Result<Topology, String> {
    Topology::parse(text, Path::new("")).map_err(|error| error.to_string())
}

const REGIONS: &str = "[[region]]\nname = \"fra\"\n[[region]]\nname = \"iad\"\n[[region]]\nname = \"syd\"\n";

fn delay_ms(topology: &Topology, from: usize, to: usize) -> f64 {
    topology.shape(from, to).delay.0.as_secs_f64() * 1e3
}

#[test]
fn ways_come_from_links_then_defaults_then_the_model() {
    let topology = parse(&format!(
        "rtt = \"published\"\n[defaults]\nloss = \"1%\"\njitter = \"2ms\"\n{REGIONS}
         [[link]]\nbetween = [\"fra\", \"syd\"]\nbandwidth = \"10mbit\"\nqueue = \"64KiB\"
         [[link]]\nfrom = \"fra\"\nto = \"iad\"\ndelay = \"7ms\"\nloss = \"0\"\n"
    ))
    .unwrap();
    let model = LatencyModel::default();
    assert_eq!(delay_ms(&topology, 0, 1), 7.0);
    assert_eq!(topology.shape(1, 0).delay.0, model.one_way("iad", "fra"));
    assert_eq!((topology.shape(0, 1).loss, topology.shape(1, 0).loss), (Loss(0.0), Loss(0.01)));
    let slow = topology.shape(2, 0);
    assert_eq!((slow.bandwidth, slow.queue), (Bandwidth(Some(10_000_000)), Bytes(65_536)));
    assert_eq!(slow.jitter.0, Duration::from_millis(2));
    assert_eq!(topology.names().collect::<Vec<_>>(), ["fra", "iad", "syd"]);
    assert_eq!(topology.address(2), Ipv4Addr::new(10, 77, 0, 3));
    assert!(!topology.host());
}

#[test]
fn places_off_the_map_have_coordinates_or_delays() {
    let home = "[[region]]\nname = \"fra\"\n[[region]]\nname = \"home\"\n";
    let topology = parse(&format!("{home}lat = 52.5\nlon = 13.4\n")).unwrap();
    assert!((3.0..15.0).contains(&delay_ms(&topology, 0, 1)), "{}", delay_ms(&topology, 0, 1));
    assert_eq!(delay_ms(&topology, 0, 1), delay_ms(&topology, 1, 0));
    let topology = parse(&format!("[defaults]\ndelay = \"9ms\"\n{home}")).unwrap();
    assert_eq!(delay_ms(&topology, 0, 1), 9.0);
    let link = "[[link]]\nbetween = [\"fra\", \"home\"]\ndelay = \"5ms\"\n";
    assert_eq!(delay_ms(&parse(&format!("{home}{link}")).unwrap(), 1, 0), 5.0);
}

#[test]
fn a_file_of_round_trips_is_looked_for_beside_the_topology() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ours.csv"), "fra,iad,101\n").unwrap();
    std::fs::write(folder.path().join("wan.toml"), format!("rtt = \"ours.csv\"\n{REGIONS}")).unwrap();
    let topology = Topology::read(&folder.path().join("wan.toml")).unwrap();
    assert_eq!(delay_ms(&topology, 0, 1), 50.5);
    assert!(matches!(Topology::read(&folder.path().join("no.toml")), Err(TopologyError::Read(_))));
}

#[test]
fn commands_are_filled_in_for_each_region() {
    let mut topology = parse(&format!(
        "host = true\nnetwork = \"10.9.8.0/28\"\n{REGIONS}address = \"10.9.8.12\"
         [[process]]\nregion = \"iad\"\ncommand = [\"router\", \"--peer\", \"{{address:syd}}:4000\"]\n"
    ))
    .unwrap();
    let filled = |topology: &Topology, region, argument: &str| {
        topology.command_in(region, &[argument.to_owned()]).map(|mut filled| filled.remove(0))
    };
    assert_eq!(filled(&topology, 1, "{region}@{address}"), Ok("iad@10.9.8.2".to_owned()));
    assert_eq!(
        filled(&topology, 1, "--peer={peers:4000}"),
        Ok("--peer=10.9.8.1:4000,10.9.8.12:4000".to_owned())
    );
    assert_eq!(filled(&topology, 2, "{peers}"), Ok("10.9.8.1,10.9.8.2".to_owned()));
    for left in ["${HOME} {} {print $1} {a{region", "{peers:x}", "}{"] {
        assert_eq!(filled(&topology, 0, left), Ok(left.to_owned()));
    }
    assert_eq!(filled(&topology, 0, "{{region}}"), Ok("{fra}".to_owned()));
    assert!(filled(&topology, 0, "{address:nrt}").unwrap_err().contains("\"nrt\""));
    let process = &topology.processes()[0];
    assert_eq!(process.region, Some(1));
    assert_eq!(topology.command_in(1, &process.command).unwrap()[2], "10.9.8.12:4000");
    assert_eq!(topology.variables(0)[2], ("MYCHAT_WAN_PEERS", "10.9.8.2,10.9.8.12".to_owned()));
    topology.run_everywhere(vec!["node".to_owned()]);
    assert_eq!(topology.processes()[1], Process { region: None, command: vec!["node".to_owned()] });
    assert!(!topology.move_to(Subnet::usual(9)) && topology.host());
}

#[test]
fn an_address_that_nobody_chose_can_be_another() {
    let mut topology = parse(REGIONS).unwrap();
    assert!(topology.move_to(Subnet::usual(9)));
    assert_eq!(topology.address(0), Ipv4Addr::new(10, 77, 9, 1));
}

#[test]
fn the_example_of_the_help_is_right() {
    let help = include_str!("../help.txt");
    let (_, example) = help.split_once("model:\n").unwrap();
    let (example, _) = example.split_once("In commands").unwrap();
    let topology = parse(example).unwrap();
    assert_eq!(topology.names().collect::<Vec<_>>(), ["fra", "office"]);
    assert_eq!((delay_ms(&topology, 0, 1), delay_ms(&topology, 1, 0)), (8.0, 8.0));
    assert_eq!(topology.shape(1, 0).bandwidth, Bandwidth(Some(10_000_000)));
    assert_eq!(topology.command_in(1, &topology.processes()[0].command).unwrap()[3], "10.77.0.9:8080");
}

#[test]
fn mistakes_are_named_with_their_line() {
    let all = |more: &str| format!("{REGIONS}{more}");
    for (text, says) in [
        ("", "line 1: there is no [[region]]"),
        ("[[region]]\nname = \"fra\"\nnmae = 1", "line 3: unknown field `nmae`"),
        ("[[region]]\nname = ", "line 2: "),
        ("[[region]]\nlat = 1.0\n", "line 1: missing field `name`"),
        ("[[region]]\nname = \"Frankfurt\"", "line 2: \"Frankfurt\""),
        ("[[region]]\nname = \"host\"", "line 2: host is the name of this machine"),
        ("[[region]]\nname = \"fra\"\n\n[[region]]\nname = \"fra\"", "line 5: region fra is there twice"),
        (
            "[[region]]\nname = \"fra\"\n[[region]]\nname = \"home\"",
            "line 4: home is not on the router's map",
        ),
        ("[[region]]\nname = \"home\"\nlat = 91.0\nlon = 0.0", "line 1: lat 91"),
        ("[[region]]\nname = \"home\"\nlat = 9.0", "line 1: give both lat and lon"),
        ("network = \"10.1.2.3\"\n", "line 1: \"10.1.2.3\" is not a network"),
        ("[[region]]\nname = \"fra\"\naddress = \"10.77.0.9\"", "line 3: give network too"),
        (
            "network = \"10.1.0.0/24\"\n[[region]]\nname = \"fra\"\naddress = \"10.77.0.9\"",
            "line 4: 10.77.0.9",
        ),
        (
            "network = \"10.1.0.0/24\"\n[[region]]\nname = \"fra\"\naddress = \"10.1.0.2\"\n[[region]]\nname = \"iad\"",
            "line 6: iad and fra both have 10.1.0.2",
        ),
        ("rtt = \"no.csv\"\n[[region]]\nname = \"fra\"", "line 1: rtt: no.csv"),
        (&all("[[link]]\nbetween = [\"fra\", \"nrt\"]\nloss = \"1%\""), "line 8: there is no region \"nrt\""),
        (&all("[[link]]\nbetween = [\"fra\"]\nloss = \"1%\""), "line 8: between: give two regions"),
        (&all("[[link]]\nfrom = \"fra\"\nloss = \"1%\""), "line 7: give between"),
        (&all("[[link]]\nfrom = \"fra\"\nto = \"fra\"\nloss = \"1%\""), "line 9: fra and itself"),
        (&all("[[link]]\nfrom = \"fra\"\nto = \"iad\""), "line 7: it sets nothing"),
        (&all("[[link]]\nfrom = \"fra\"\nto = \"iad\"\ndelay = 80"), "line 10: 80 has no unit"),
        (&all("[[link]]\nfrom = \"fra\"\nto = \"iad\"\nloss = \"200%\""), "line 10: \"200%\""),
        (&all("[[link]]\nfrom = \"fra\"\nto = \"iad\"\nbandwidth = \"fast\""), "line 10: \"fast\""),
        (
            &all(
                "[[link]]\nbetween = [\"fra\", \"iad\"]\nloss = \"1%\"\n[[link]]\nfrom = \"iad\"\nto = \"fra\"\nloss = \"2%\"",
            ),
            "line 10: the loss of this link has been set before",
        ),
        (&all("[[process]]\ncommand = []"), "line 7: command"),
        (&all("[[process]]\nregion = \"nrt\"\ncommand = [\"true\"]"), "line 8: there is no region \"nrt\""),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(says), "{error}\n{says}");
        assert!(!error.contains('\n'), "{error}");
    }
}

proptest! {
    #[test]
    fn no_text_is_a_panic(text in "\\PC{0,40}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_topology_is_a_panic(keys in prop::collection::vec(
        (
            prop::sample::select(vec!["name", "lat", "lon", "address", "between", "from", "to", "delay", "loss", "command"]),
            prop::sample::select(vec!["\"fra\"", "\"iad\"", "1.5", "\"10.77.0.1\"", "[\"fra\", \"iad\"]", "\"5ms\"", "\"1%\""]),
        ), 0..4), table in prop::sample::select(vec!["region", "link", "process"])) {
        let lines: Vec<String> = keys.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        let _ = parse(&format!("network = \"10.77.0.0/24\"\n{REGIONS}[[{table}]]\n{}\n", lines.join("\n")));
    }
}
