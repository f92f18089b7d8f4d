//! `skerry user …` and what the node says of its users, as an operator runs them.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

struct Ran {
    code: i32,
    out: String,
    err: String,
}

/// Runs `skerry ARGUMENTS` with `input` as its standard input.
fn skerry(arguments: &[&str], input: &str) -> Ran {
    let mut process = Command::new(env!("CARGO_BIN_EXE_skerry"))
        .args(arguments)
        .env("SKERRY_LOG", "off")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = process.stdin.take().unwrap();
    // A command that wants no input may have ended already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = process.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// Runs `skerry user COMMAND… --file FILE` with a password on standard input.
fn user(command: &[&str], file: &Path, password: &str) -> Ran {
    let file = file.display().to_string();
    skerry(&[&["user"], command, &["--file", &file]].concat(), password)
}

#[test]
fn users_are_added_changed_checked_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("users");
    let add = user(&["add", "ada", "--stdin"], &file, "secret 1\n");
    assert_eq!((add.code, add.err.as_str()), (0, ""), "{}", add.out);
    assert_eq!(user(&["add", "bob", "--stdin"], &file, "b").code, 0);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(
        text.starts_with("ada:$argon2id$v=19$m=19456,t=2,p=1$"),
        "{text}"
    );
    assert!(!text.contains("secret"));
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(user(&["list"], &file, "").out, "ada\nbob\n");

    let check = |password| user(&["check", "ada", "--stdin"], &file, password).code;
    assert_eq!((check("secret 1"), check("secret 2")), (0, 1));
    assert_eq!(
        user(&["passwd", "ada", "--stdin"], &file, "secret 2").code,
        0
    );
    assert_eq!((check("secret 1"), check("secret 2")), (1, 0));
    assert_eq!(user(&["remove", "bob"], &file, "").code, 0);
    assert_eq!(user(&["list"], &file, "").out, "ada\n");
}

#[test]
fn what_cannot_be_done_says_why_and_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("users");
    assert_eq!(user(&["add", "ada", "--stdin"], &file, "x").code, 0);
    let before = std::fs::read_to_string(&file).unwrap();
    for (command, password, told) in [
        (
            &["add", "ada", "--stdin"][..],
            "x",
            "skerry user passwd ada",
        ),
        (&["add", "a/b", "--stdin"], "x", "cannot be a user's name"),
        (&["add", "bob", "--stdin"], "\n", "empty password"),
        (&["passwd", "bob", "--stdin"], "x", "no user `bob`"),
        (&["remove", "bob"], "", "no user `bob`"),
        (&["check", "bob", "--stdin"], "x", "no user `bob`"),
    ] {
        let ran = user(command, &file, password);
        assert_eq!(ran.code, 1, "{command:?}");
        assert!(ran.err.contains(told), "{command:?}: {}", ran.err);
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    // A password is never an argument: there it would be in the shell's history.
    assert_eq!(user(&["add", "bob", "secret"], &file, "").code, 2);
    std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let exposed = user(&["list"], &file, "");
    assert!(exposed.err.contains("chmod 640"), "{}", exposed.err);
}

#[test]
fn the_config_names_the_file_and_check_reports_what_is_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("skerry.toml");
    let write = |mqtt: &str| {
        let data = directory.path().join("data");
        let text = format!(
            "[node]\nname = \"n\"\ndata_dir = \"{}\"\n[mqtt]\n{mqtt}",
            data.display()
        );
        std::fs::write(&config, text).unwrap();
    };
    let named = config.display().to_string();
    let check = || skerry(&["check", &named], "");
    let user = |command: &[&str]| {
        skerry(
            &[&["user"], command, &["--config", &named]].concat(),
            "secret",
        )
    };

    write("");
    let open = check();
    assert_eq!(open.code, 0, "{}", open.err);
    for part in [
        "warning: ",
        "0.0.0.0:1883",
        "skerry user add",
        "anonymous = \"always\"",
    ] {
        assert!(open.err.contains(part), "{part} is not in {}", open.err);
    }
    let nameless = user(&["list"]);
    assert!(
        nameless.err.contains("users_file = \"users\""),
        "{}",
        nameless.err
    );
    for mqtt in ["anonymous = \"always\"\n", "listen = \"127.0.0.1:1883\"\n"] {
        write(mqtt);
        assert_eq!(check().err, "", "{mqtt}");
    }

    write("users_file = \"users\"\nacl_file = \"acl\"\n");
    std::fs::write(directory.path().join("acl"), "topic read a\n").unwrap();
    let missing = check();
    assert_eq!(missing.code, 2);
    assert!(
        missing.err.contains("skerry.toml:5: mqtt.users_file: "),
        "{}",
        missing.err
    );
    assert!(
        missing.err.contains("skerry user add NAME"),
        "{}",
        missing.err
    );
    // The very command that it asks for works on a config with this problem.
    assert_eq!(user(&["add", "ada", "--stdin"]).code, 0);
    assert_eq!((check().code, check().err.as_str()), (0, ""));
    std::fs::write(directory.path().join("acl"), "\ntopic raed a\nuser\n").unwrap();
    let broken = check();
    for part in [
        "skerry.toml:6: mqtt.acl_file: ",
        "acl:2: `raed`",
        "acl:3: `user` must",
    ] {
        assert!(broken.err.contains(part), "{part} is not in {}", broken.err);
    }
}
