//! `skerry first-boot`: boxes that are set up by a stick, as their first start runs it.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A box that has never been set up, with an id and one network interface.
struct Board {
    root: tempfile::TempDir,
}

struct Ran {
    code: i32,
    console: String,
}

impl Board {
    fn new(id: &str, mac: &str) -> Self {
        let board = Self {
            root: tempfile::tempdir().unwrap(),
        };
        for (path, text) in [
            ("etc/machine-id", id),
            ("proc/sys/kernel/hostname", "localhost"),
            ("sys/class/net/eth0/address", mac),
            ("sys/class/net/eth0/addr_assign_type", "0"),
            ("sys/class/net/eth0/type", "1"),
            ("sys/class/net/eth0/device/uevent", ""),
        ] {
            put(&board.root.path().join(path), text);
        }
        board
    }

    fn etc(&self, name: &str) -> PathBuf {
        self.root.path().join("etc/skerry").join(name)
    }

    fn command(&self, stick: &Path, more: &[&str]) -> Vec<String> {
        let mut command = vec![
            env!("CARGO_BIN_EXE_skerry").to_owned(),
            "first-boot".to_owned(),
            format!("--root={}", self.root.path().display()),
            format!("--into={}", self.etc("").display()),
            format!("--from={}", stick.display()),
        ];
        command.extend(more.iter().map(|argument| (*argument).to_owned()));
        command
    }

    /// The first start, or another one.
    fn start(&self, stick: &Path, more: &[&str]) -> Ran {
        run(&self.command(stick, more))
    }
}

fn run(command: &[String]) -> Ran {
    let output = Command::new(&command[0])
        .args(&command[1..])
        .env("SKERRY_LOG", "off")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    Ran {
        code: output.status.code().unwrap(),
        console: String::from_utf8(text).unwrap(),
    }
}

fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn stick(files: &[(&str, &str)]) -> tempfile::TempDir {
    let stick = tempfile::tempdir().unwrap();
    for (name, text) in files {
        put(&stick.path().join(name), text);
    }
    stick
}

fn result(stick: &Path) -> String {
    fs::read_to_string(stick.join("skerry-result.txt")).unwrap_or_default()
}

const PRESS_1: [&str; 2] = ["0123456789abcdef0123456789abcdef", "b8:27:eb:01:02:03"];
const PRESS_2: [&str; 2] = ["123456789abcdef0123456789abcdef0", "b8:27:eb:0a:0b:0c"];
const NODES: &str = "which;name\r\nB8-27-EB-01-02-03;press-1\r\nB8-27-EB-0A-0B-0C;press-2\r\n";
const CONFIG: &str = "[node]\nname = \"{name}\" # {machine}\n[mqtt]\nlisten = \"127.0.0.1:0\"\n\
                      [kafka]\nbrokers = [\"kafka.example.com:9093\"]\nuser = \"{name}\"\n\
                      password_file = \"credential:{name}.password\"\ntls = { ca_file = \"ca.pem\" }\n";

fn for_two() -> tempfile::TempDir {
    stick(&[
        ("skerry.toml", CONFIG),
        ("nodes.csv", NODES),
        ("ca.pem", "an authority"),
        ("credentials/press-1.password", "one"),
        ("credentials/press-2.password", "two"),
    ])
}

#[test]
fn one_stick_sets_up_two_boxes_each_with_its_own() {
    let stick = for_two();
    for ([id, mac], name, other, password) in [
        (PRESS_1, "press-1", "press-2", "one"),
        (PRESS_2, "press-2", "press-1", "two"),
    ] {
        let board = Board::new(id, mac);
        let drop_in = board.root.path().join("skerry.service.d/first-boot.conf");
        let drop_in_argument = format!("--drop-in={}", drop_in.display());
        let first = board.start(stick.path(), &[&drop_in_argument]);
        assert_eq!(first.code, 0, "{}", first.console);
        let told = format!("is set up from {} as `{name}`", stick.path().display());
        assert!(first.console.contains(&told), "{}", first.console);
        let config = fs::read_to_string(board.etc("skerry.toml")).unwrap();
        assert!(config.contains(&format!("name = \"{name}\"")), "{config}");
        // Nobody learns the machine id from it.
        assert!(!config.contains(&id[..16]) && !config.contains("{machine}"));
        let password_file = board.etc(&format!("credentials/{name}.password"));
        assert_eq!(fs::read_to_string(&password_file).unwrap(), password);
        let mode = fs::metadata(&password_file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!board.etc(&format!("credentials/{other}.password")).exists());
        assert!(board.etc("ca.pem").exists() && !board.etc("nodes.csv").exists());
        let handed = format!("LoadCredential={name}.password:{}", password_file.display());
        assert!(fs::read_to_string(&drop_in).unwrap().contains(&handed));
        // The stick stays in.
        let again = board.start(stick.path(), &[&drop_in_argument]);
        assert!(again.code == 0 && again.console.contains("nothing has changed"));
    }
    let result = result(stick.path());
    for told in ["as `press-1`", "as `press-2`", "MAC b8:27:eb:01:02:03"] {
        assert!(result.contains(told), "{result}");
    }
    assert_eq!(result.matches("=== ").count(), 2, "{result}");
}

#[test]
fn what_is_wrong_on_the_stick_is_told_with_its_line_and_changes_nothing() {
    let board = Board::new(PRESS_1[0], PRESS_1[1]);
    for (config, nodes, told) in [
        // As `skerry check` has it, on the line of the stick's file.
        (
            "[node]\nname = \"{machine}\"\n[mqtt]\nlisten = \"nowhere\"\n",
            "",
            "skerry.toml:4: mqtt.listen: ",
        ),
        (
            "[node]\nname = \"{nmae}\"\n",
            NODES,
            "skerry.toml:2: {nmae}: stands for nothing",
        ),
        (
            "[node]\nname = \"{hostname}\"\n",
            "",
            "skerry.toml:2: {hostname}: this box's hostname is `localhost`",
        ),
        (
            "[node]\nname = \"{name}\"\n",
            "which,name\nother,a\n",
            "nodes.csv:1: no line is for this box",
        ),
        (
            "[node]\nname = \"a\"\n[kafka]\nbrokers = [\"b:1\"]\ntls = {}\nuser = \"a\"\n\
             password_file = \"credential:pw\"\n",
            "",
            "skerry.toml:7: credential:pw: is not on the stick",
        ),
    ] {
        let stick = stick(&[("skerry.toml", config)]);
        if !nodes.is_empty() {
            put(&stick.path().join("nodes.csv"), nodes);
        }
        let ran = board.start(stick.path(), &[]);
        assert_eq!(ran.code, 2, "{}", ran.console);
        for place in [ran.console, result(stick.path())] {
            let told = format!("{}/{told}", stick.path().display());
            assert!(place.contains(&told), "{told} is not told: {place}");
            assert!(place.contains("NOT set up") && place.contains("MAC b8:27:eb:01:02:03"));
        }
        let left = fs::read_dir(board.etc("")).into_iter().flatten().count();
        assert_eq!(left, 0, "something is in the box");
    }
}

#[test]
fn a_box_that_is_configured_is_changed_by_who_is_logged_in_only() {
    let board = Board::new(PRESS_1[0], PRESS_1[1]);
    let (path, by_hand) = (board.etc("skerry.toml"), "[node]\nname = \"by-hand\"\n");
    put(&path, by_hand);
    let stick = for_two();
    let ran = board.start(stick.path(), &[]);
    assert_eq!(ran.code, 0, "{}", ran.console);
    assert!(ran.console.contains("is there already"), "{}", ran.console);
    assert!(result(stick.path()).contains("NOT set up"));
    assert_eq!(fs::read_to_string(&path).unwrap(), by_hand);
    assert!(!board.etc("credentials").exists());
    // Told to; what was there is kept.
    assert_eq!(board.start(stick.path(), &["--replace"]).code, 0);
    assert!(fs::read_to_string(&path).unwrap().contains("press-1"));
    let old = fs::read_to_string(board.etc("skerry.toml.old")).unwrap();
    assert_eq!(old, by_hand);
    assert!(result(stick.path()).contains("as `press-1`"));
}

#[test]
fn an_example_that_nobody_touched_gives_way() {
    let board = Board::new(PRESS_1[0], PRESS_1[1]);
    let example = board.root.path().join("example.toml");
    let argument = format!("--example={}", example.display());
    put(&example, "[node]\nname = \"skerry\"\n");
    put(&board.etc("skerry.toml"), "[node]\nname = \"skerry\" \n");
    let stick = for_two();
    let touched = board.start(stick.path(), &[&argument]);
    assert!(touched.console.contains("is there already"));
    fs::copy(&example, board.etc("skerry.toml")).unwrap();
    let untouched = board.start(stick.path(), &[&argument, "--remove-credentials"]);
    assert!(
        untouched.console.contains("as `press-1`"),
        "{}",
        untouched.console
    );
    let left = |name: &str| stick.path().join("credentials").join(name).exists();
    assert!(!left("press-1.password") && left("press-2.password"));
    // And that they are gone from there is no reason to complain at the next start.
    let again = board.start(stick.path(), &[&argument, "--remove-credentials"]);
    assert!(
        again.console.contains("nothing has changed"),
        "{}",
        again.console
    );
}

#[test]
fn without_a_stick_nothing_happens() {
    let board = Board::new(PRESS_1[0], PRESS_1[1]);
    let empty = stick(&[("holiday.jpg", "")]);
    let ran = board.start(empty.path(), &[]);
    assert_eq!(ran.code, 0);
    assert!(ran.console.contains("nothing to set up"), "{}", ran.console);
    assert!(!board.etc("").exists() && result(empty.path()).is_empty());
    let misnamed = stick(&[("skerry.toml.txt", CONFIG)]);
    assert_eq!(board.start(misnamed.path(), &[]).code, 2);
    assert!(result(misnamed.path()).contains("Windows hides the end"));
}

/// Runs `command` where `folder` is mounted read-only; false where no user may do that.
fn with_read_only(folder: &Path, command: &[String]) -> Option<Ran> {
    let mount = format!(
        r#"mount --bind "{0}" "{0}" && mount -o remount,bind,ro "{0}" || exit 99; exec "$@""#,
        folder.display()
    );
    let wrapper = ["unshare", "-rm", "sh", "-c", &mount, "sh"].map(str::to_owned);
    let can = Command::new("unshare").args(["-rm", "true"]).status();
    if !can.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "no user namespaces in CI");
        eprintln!("skipped: no user namespaces here");
        return None;
    }
    let ran = run(&[&wrapper, command].concat());
    assert_ne!(ran.code, 99, "{}", ran.console);
    Some(ran)
}

#[test]
fn a_root_that_is_read_only_is_told_on_console_and_stick() {
    let (board, stick) = (Board::new(PRESS_1[0], PRESS_1[1]), for_two());
    let command = board.command(stick.path(), &[]);
    let Some(ran) = with_read_only(board.root.path(), &command) else {
        return;
    };
    assert_eq!(ran.code, 1, "{}", ran.console);
    for place in [ran.console, result(stick.path())] {
        assert!(place.contains("mounted read-only"), "{place}");
        assert!(place.contains("etc/skerry"), "{place}");
    }
}

#[test]
fn a_stick_that_cannot_be_written_to_sets_up_all_the_same() {
    let (board, stick) = (Board::new(PRESS_1[0], PRESS_1[1]), for_two());
    let command = board.command(stick.path(), &[]);
    let Some(ran) = with_read_only(stick.path(), &command) else {
        return;
    };
    assert_eq!(ran.code, 0, "{}", ran.console);
    assert!(ran.console.contains("could not be told on the stick"));
    assert!(board.etc("skerry.toml").exists() && result(stick.path()).is_empty());
}

/// A unit as it is shipped, with this program in its place.
fn unit(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../configs")
        .join(name);
    let text = fs::read_to_string(path).unwrap();
    text.replace("/usr/bin/skerry", env!("CARGO_BIN_EXE_skerry"))
}

#[test]
fn the_units_run_what_there_is() {
    for (name, place) in [
        ("skerry-first-boot.service", "boot/skerry"),
        ("skerry-stick.service", "media/skerry"),
    ] {
        let board = Board::new(PRESS_1[0], PRESS_1[1]);
        let root = board.root.path();
        let config = "[node]\nname = \"a-{mac}\"\n[mqtt]\nlisten = \"127.0.0.1:0\"\n";
        put(&root.join(place).join("skerry.toml"), config);
        let unit = unit(name).replace("\\\n", " ");
        let line = unit
            .lines()
            .find_map(|line| line.strip_prefix("ExecStart="));
        // What it touches is below the board's root here, and no service is started.
        let words = line.unwrap().split_whitespace();
        let words = words.filter(|word| !matches!(*word, "--then-start" | "skerry.service"));
        let mut command: Vec<_> = words
            .map(
                |word| match word.starts_with('/') && word != env!("CARGO_BIN_EXE_skerry") {
                    true => format!("{}{word}", root.display()),
                    false => word.to_owned(),
                },
            )
            .collect();
        command.push(format!("--root={}", root.display()));
        let ran = run(&command);
        assert!(
            ran.code == 0 && ran.console.contains("as `a-b827eb010203`"),
            "{}",
            ran.console
        );
        assert!(board.etc("skerry.toml").exists());
        assert!(result(&root.join(place)).contains("is set up"));
    }
}

#[test]
fn the_units_are_understood_by_systemd_and_confined() {
    let folder = tempfile::tempdir().unwrap();
    let services = ["skerry-first-boot.service", "skerry-stick.service"];
    let paths: Vec<_> = services
        .iter()
        .chain(&["media-skerry.mount"])
        .map(|name| {
            let path = folder.path().join(name);
            put(&path, &unit(name));
            path
        })
        .collect();
    let analyze = |arguments: &[&str], paths: &[PathBuf]| {
        Command::new("systemd-analyze")
            .args(arguments)
            .args(paths)
            .output()
    };
    let Ok(verified) = analyze(&["verify"], &paths) else {
        assert!(std::env::var_os("CI").is_none(), "no systemd-analyze in CI");
        eprintln!("skipped: no systemd-analyze here");
        return;
    };
    let told = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(
        verified.status.success() && !told.contains("skerry"),
        "{told}"
    );
    for path in &paths[..2] {
        let checked = analyze(
            &["security", "--offline=true", "--threshold=20"],
            std::slice::from_ref(path),
        );
        let checked = checked.unwrap();
        assert!(
            checked.status.success(),
            "{}",
            String::from_utf8_lossy(&checked.stdout)
        );
    }
}
