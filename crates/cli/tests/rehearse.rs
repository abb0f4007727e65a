//! `estive rehearse`, `plan`, `capacity` and `world convert` on the program itself, over files: what they say, and their exit codes.

use std::fs;
use std::process::{Command, Output};

struct Place(tempfile::TempDir);

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = home.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(home)
    }

    fn run(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_estive"))
            .current_dir(self.0.path())
            .args(words)
            .output()
            .unwrap()
    }

    fn says(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, words: &[&str], code: i32) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

const WORLD: &str = "\
rules cooldown=0s
host a cpus=8c memory=32G watts=80,140 boot=60s
host b cpus=8c memory=32G watts=80,140 boot=60s
domain x on=a cpus=2c memory=2G uses-cpu=1c
domain y on=a cpus=2c memory=2G uses-cpu=1c
domain z on=a cpus=2c memory=2G uses-cpu=1c
ask even objective=balance
ask few objective=consolidate moves=5
";

#[test]
fn a_world_is_rehearsed_under_two_policies_and_the_same_again() {
    let loads = "10\n90\n50\n";
    let place = Place::new(&[("w.world", WORLD), ("day/x", loads), ("day/y", "100\n")]);
    let words = [
        "rehearse", "--world", "w.world", "--trace", "day", "--length", "3600", "--svg", "out.svg",
        "--output", "json",
    ];
    let told = place.says(&words);
    let courses: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(courses[0]["policy"], "nothing");
    assert_eq!(courses[1]["policy"], "plan");
    assert_eq!(courses[0]["figures"]["moves"], 0);
    assert!(
        courses[1]["figures"]["moves"].as_u64().unwrap() > 0,
        "{told}"
    );
    assert_eq!(place.says(&words), told);
    let svg = fs::read_to_string(place.0.path().join("out.svg")).unwrap();
    assert!(svg.starts_with("<svg"), "{svg}");
    let table = place.says(&["rehearse", "--world", "w.world", "--policy", "nothing"]);
    assert!(
        table.lines().count() == 2 && table.contains("kWh"),
        "{table}"
    );
    let said = place.fails(&["rehearse", "--world", "w.world", "--policy", "best"], 2);
    assert!(said.contains("no policy best"), "{said}");
    let said = place.fails(&["rehearse", "--world", "w.world", "--trace", "none"], 1);
    assert!(said.contains("none"), "{said}");
}

#[test]
fn a_day_of_traces_is_replayed_as_cloudsim_does() {
    let files: Vec<(String, String)> = (0..8)
        .map(|at| {
            let lines: String = (0..24)
                .map(|line| format!("{}\n", (at * 7 + line * 5) % 100))
                .collect();
            (format!("day/vm{at}"), lines)
        })
        .collect();
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (&**name, &**text))
        .collect();
    let place = Place::new(&files);
    let told = place.says(&[
        "rehearse",
        "--cloudsim",
        "--trace",
        "day",
        "--hosts",
        "8",
        "--policy",
        "DVFS,frugal",
        "--output",
        "json",
    ]);
    let rows: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(rows[0]["policy"], "DVFS");
    let kwh = |row: usize| rows[row]["outcome"]["kwh"].as_f64().unwrap();
    assert!(kwh(1) <= kwh(0) && kwh(1) > 0.0, "{told}");
    assert_eq!(rows[1]["variant"], "kept");
    let said = place.fails(
        &[
            "rehearse",
            "--cloudsim",
            "--trace",
            "day",
            "--policy",
            "LR,frugal",
        ],
        2,
    );
    assert!(
        said.contains("no policy LR is left") && said.contains("LR-MMT-1.2"),
        "{said}"
    );
}

#[test]
fn questions_come_from_the_file_and_options_go_over_them() {
    let place = Place::new(&[("w.world", WORLD)]);
    let even = place.says(&["plan", "--world", "w.world"]);
    assert!(
        even.contains("from a to b") && even.contains("balance:"),
        "{even}"
    );
    let few = place.says(&[
        "plan", "--world", "w.world", "--ask", "few", "--output", "json",
    ]);
    let few: serde_json::Value = serde_json::from_str(&few).unwrap();
    assert_eq!(few["plan"]["objective"], "consolidate(spare=10%)");
    let said = place.fails(&["plan", "--world", "w.world", "--ask", "many"], 2);
    assert!(said.contains("no line `ask many`"), "{said}");
    let out = place.says(&["plan", "--world", "w.world", "--objective", "guests-out(a)"]);
    assert_eq!(
        out.lines()
            .filter(|line| line.contains("from a to b"))
            .count(),
        3,
        "{out}"
    );
    let why = place.says(&["why-not", "x", "b", "--world", "w.world"]);
    assert!(why.contains('x') && why.contains('b'), "{why}");

    let told = place.says(&[
        "capacity", "--world", "w.world", "--cpus", "2", "--memory", "10G",
    ]);
    assert!(told.ends_with("5 more fit\n"), "{told}");
    let said = place.fails(&["capacity", "--world", "w.world", "--memory", "10"], 2);
    assert!(said.contains("--memory: `10` has no ending"), "{said}");
    assert_eq!(
        place
            .run(&["capacity", "--world", "w.world", "--needs", "gpu"])
            .status
            .code(),
        Some(2)
    );
}

#[test]
fn a_wrong_world_is_said_by_file_line_and_column() {
    let place = Place::new(&[
        ("w.world", "host a\ndomain x on=b\n"),
        ("q.world", "ask objective=speed\n"),
    ]);
    for words in [
        &["world", "check", "w.world"][..],
        &["plan", "--world", "w.world"],
    ] {
        let said = place.fails(words, 1);
        assert!(
            said.contains("w.world:2:13: no host b above this line"),
            "{said}"
        );
    }
    let said = place.fails(&["world", "check", "q.world"], 1);
    assert!(
        said.contains("q.world:1:15: no term is called `speed`"),
        "{said}"
    );
    let said = place.fails(&["world", "check", "none.world"], 1);
    assert!(said.contains("none.world"), "{said}");
}

#[test]
fn a_world_goes_to_ganeti_and_back_and_a_plan_is_written_into_the_cluster() {
    let place = Place::new(&[("w.world", WORLD)]);
    place.says(&[
        "world",
        "convert",
        "w.world",
        "--to",
        "ganeti",
        "--out",
        "c.data",
        "--loads-out",
        "c.util",
    ]);
    let back = place.says(&["world", "convert", "c.data", "--loads", "c.util"]);
    assert!(
        back.contains("domain x on=a cpus=2c memory=2G uses-cpu=1c"),
        "{back}"
    );
    fs::write(
        place.0.path().join("moved.world"),
        back.replace("domain x on=a", "domain x on=b"),
    )
    .unwrap();
    let data = place.says(&[
        "world",
        "convert",
        "c.data",
        "--to",
        "ganeti",
        "--placed-as",
        "moved.world",
    ]);
    assert!(
        data.lines()
            .any(|line| line.starts_with("x|2048|0|2|running|Y|b|")),
        "{data}"
    );
}

#[test]
fn what_rises_in_the_windows_is_foreseen_in_a_plan_with_its_error() {
    let windows: Vec<String> = (0..40)
        .map(|hour| format!("{:.2}c", 1.0 + f64::from(hour) * 0.05))
        .collect();
    let windows = windows.join(",");
    let world = format!(
        "world window=1h\nhost a cpus=4c\nhost b cpus=4c\ndomain x on=a cpus=4c uses-cpu=2.95c windows-cpu={windows}\nask objective=balance\n"
    );
    let place = Place::new(&[("w.world", &world)]);
    let words = ["plan", "--world", "w.world", "--horizon", "14400"];
    let told = place.says(&words);
    assert!(
        told.contains("1 of 1 forecasts count") && told.contains("trend"),
        "{told}"
    );
    let json = place.says(&[&words[..], &["--output", "json"]].concat());
    let plan: serde_json::Value = serde_json::from_str(&json).unwrap();
    let forecast = &plan["plan"]["report"]["forecasts"][0];
    assert!(
        forecast["expected"].as_u64().unwrap() > 3_000_000,
        "{forecast}"
    );
    assert!(
        forecast["error"].as_f64() < forecast["as_now"].as_f64(),
        "{forecast}"
    );
    let told = place.says(&["plan", "--world", "w.world", "--horizon", "0"]);
    assert!(!told.contains("forecasts count"), "{told}");
}
