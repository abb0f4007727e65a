//! A changed herd reaches a Debian clone that runs: through its guest agent, before and after a live migration, and its
//! next start. One clone and two boots for all of it, since a Debian guest is dear under emulation.
#![allow(clippy::disallowed_methods)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use common::{
    ShownBed, assert_nothing_stays, bed_config, debian_reference, done, herd, listed, name,
    on_guests, shown, stdout, until, work,
};
use estive_testbed::demo::make_key;
use estive_testbed::trial::ssh;
use serde_json::Value;

const CLONE: &str = "clone01";

#[test]
fn a_change_reaches_a_running_clone() {
    on_guests("inside_a_push");
}

/// The herd's own set, which the test changes.
struct Site {
    folder: PathBuf,
}

impl Site {
    fn new(folder: &str) -> Self {
        let site = Self {
            folder: Path::new(folder).join("sets/site"),
        };
        site.write(
            "set.yaml",
            "help: what the test changes\nservices:\n  - {files: [\"etc/nginx/**\"], restart: [nginx]}\n",
        );
        site
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn fill(&self, word: &str) {
        self.write(
            "var/www/html/index.html",
            &format!("<p>{CLONE}: {word} page</p>\n"),
        );
        self.write(
            "etc/nginx/conf.d/answer.conf",
            &format!("add_header X-Answer {word};\n"),
        );
        self.write("etc/motd", &format!("{word} motd\n"));
    }
}

struct Scene {
    bed: ShownBed,
    folder: String,
    key: PathBuf,
}

impl Scene {
    async fn push(&self, words: &[&str]) -> String {
        let begun = Instant::now();
        let arguments = [&["layers", "push", &self.folder], words].concat();
        let said = done(&self.bed, &arguments).await;
        println!("{said}({:.1} s)", begun.elapsed().as_secs_f64());
        said
    }

    async fn inside(&self, script: &str) -> String {
        let said = ssh(&self.bed, &name(CLONE), &self.key, script).await;
        said.unwrap().trim().to_owned()
    }

    /// Headers and page, once it answers.
    async fn page(&self) -> String {
        let address = shown(&self.bed, CLONE).await["address"]
            .as_str()
            .unwrap()
            .to_owned();
        let url = format!("http://{address}/");
        let curl = ["curl", "-sS", "-i", "-m", "60", &url];
        until("the clone's page", async || {
            let output = self.bed.topology().client.run_in(&curl).await;
            output.ok().map(|output| stdout(&output))
        })
        .await
    }

    async fn nginx(&self) -> String {
        self.inside("cat /run/nginx.pid").await
    }
}

#[tokio::test]
#[ignore = "runs inside an outer namespace"]
async fn inside_a_push() {
    let mut config = bed_config(2, debian_reference());
    config.boot_timeout_s = 300;
    let bed = ShownBed::start(config).await;
    let key = make_key(work()).unwrap();
    let public = fs::read_to_string(key.with_extension("pub")).unwrap();
    let yaml = format!(
        "network: 10.77.0.0/24\naddresses: 10.77.0.101-10.77.0.199\nmemory_mib: 384\ncpus: 1\n\
         sets: [base-debian, web, site]\nup: [http, ssh]\nssh_authorized_keys: [\"{}\"]\nhosts:\n  {CLONE}:\n",
        public.trim()
    );
    let folder = herd("site", &yaml);
    let site = Site::new(&folder);
    site.fill("first");
    done(&bed, &["up", &folder]).await;
    let scene = Scene { bed, folder, key };
    assert!(scene.page().await.contains("first page"));

    a_change_is_pushed(&scene, &site).await;
    it_goes_on_after_a_move(&scene, &site).await;
    the_next_start_has_it(&scene).await;

    done(&scene.bed, &["down", "site"]).await;
    assert_nothing_stays(&scene.bed).await;
    scene.bed.stop().await;
}

async fn a_change_is_pushed(scene: &Scene, site: &Site) {
    let pid = scene.nginx().await;
    scene.inside("echo my own >/etc/motd").await;
    site.fill("second");
    // Larger than what travels in one piece.
    site.write("var/www/html/large", &"0123456789abcdef".repeat(2 << 16));
    let foretold = scene.push(&["--dry-run"]).await;
    assert!(
        foretold.starts_with("clone01: would push 3 files, would restart nginx, left 1\n"),
        "{foretold}"
    );
    assert!(scene.page().await.contains("first page"));

    let said = scene.push(&[]).await;
    assert!(
        said.starts_with("clone01: pushed 3 files, restarted nginx, left 1\n"),
        "{said}"
    );
    assert!(
        said.contains("left /etc/motd: changed in the clone"),
        "{said}"
    );
    let page = scene.page().await;
    assert!(
        page.contains("second page") && page.contains("X-Answer: second"),
        "{page}"
    );
    let second = scene.nginx().await;
    assert_ne!(second, pid, "nginx was not restarted");
    assert_eq!(scene.inside("cat /etc/motd").await, "my own");
    let size = scene.inside("stat -c %s,%a,%u /var/www/html/large").await;
    assert_eq!(size, "2097152,644,0");

    let again = scene.push(&[]).await;
    assert!(
        again.starts_with("clone01: nothing to push, left 1\n"),
        "{again}"
    );
    assert_eq!(scene.nginx().await, second);
}

async fn it_goes_on_after_a_move(scene: &Scene, site: &Site) {
    let here = listed(&scene.bed).await[CLONE].0.clone();
    let there = if here == "host1" { "host2" } else { "host1" };
    done(&scene.bed, &["migrate", CLONE, "--to", there]).await;
    let pid = scene.nginx().await;
    site.fill("third");
    fs::remove_file(site.folder.join("etc/nginx/conf.d/answer.conf")).unwrap();
    fs::remove_file(site.folder.join("var/www/html/large")).unwrap();
    let rows = scene
        .bed
        .estive_json(&["layers", "push", &scene.folder, "--clone", CLONE])
        .await
        .unwrap();
    let row = &rows[0];
    println!("{row:#}");
    assert_eq!(
        (&row["domain"], &row["host"], &row["outcome"]),
        (&CLONE.into(), &there.into(), &"laid".into())
    );
    let report = &row["report"];
    let paths = |of: &str| {
        report[of]
            .as_array()
            .unwrap()
            .iter()
            .map(|path| path.as_str().unwrap().to_owned())
    };
    assert_eq!(
        paths("written").collect::<Vec<_>>(),
        ["var/www/html/index.html"]
    );
    let removed = ["etc/nginx/conf.d/answer.conf", "var/www/html/large"];
    assert_eq!(paths("removed").collect::<Vec<_>>(), removed);
    assert_eq!(report["services"][0]["failure"], Value::Null);
    let page = scene.page().await;
    assert!(
        page.contains("third page") && !page.contains("X-Answer"),
        "{page}"
    );
    assert_ne!(scene.nginx().await, pid, "nginx was not restarted");
    let events = done(&scene.bed, &["events", "--domain", CLONE]).await;
    assert_eq!(events.matches("layer_pushed").count(), 3, "{events}");
}

async fn the_next_start_has_it(scene: &Scene) {
    done(&scene.bed, &["stop", CLONE]).await;
    done(&scene.bed, &["start", CLONE]).await;
    assert!(scene.page().await.contains("third page"));
    let motd = until("sshd answers again", async || {
        ssh(
            &scene.bed,
            &name(CLONE),
            &scene.key,
            "cat /etc/motd; ls -a /.unions",
        )
        .await
        .ok()
    });
    let motd = motd.await;
    // What the clone had made its own went with its memory.
    assert!(motd.starts_with("third motd\n"), "{motd}");
    assert!(!motd.contains("pushed"), "{motd}");
}
