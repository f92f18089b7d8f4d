//! The Debian package, on a machine with systemd: what an operator does with it, and what keeps a
//! site going when a version is bad.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use skerry_tests::machine::Machine;
use skerry_tests::world::World;
use skerry_tests::{Context as _, Result, ensure, process, wait, workspace};

use crate::alerts::golden;

/// The least that `systemd-analyze security` says of the unit is 0, the most 10.
const EXPOSURE_MAX: f64 = 2.0;

/// The unit as it is shipped, judged by systemd itself; the keys it does not know are newer ones.
pub(crate) fn unit(_: &World) -> Result<()> {
    let unit = workspace::root().join("configs/skerry.service");
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--no-pager"]);
    let judged = process::run(command.arg(&unit), wait::START)?;
    let exposure = judged
        .stdout
        .lines()
        .find_map(|line| line.split_once("Overall exposure level for skerry.service: "))
        .and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<f64>().ok());
    let exposure = exposure.with_context(|| format!("no exposure in {}", judged.text()))?;
    ensure!(
        exposure <= EXPOSURE_MAX,
        "exposed by {exposure}: {}",
        judged.stdout
    );

    let mut command = Command::new("systemd-analyze");
    let verified = process::run(command.arg("verify").arg(&unit), wait::START)?;
    for line in verified.stderr.lines() {
        let is_newer = line.contains("RestartSteps") || line.contains("RestartMaxDelaySec");
        let is_not_installed = line.contains("is not executable: No such file or directory");
        ensure!(is_newer || is_not_installed, "the unit is wrong: {line}");
    }
    runs_what_every_machine_has(&unit)
}

/// What this machine has, a small one may not have: the unit starts what is in the package, and a shell.
fn runs_what_every_machine_has(unit: &Path) -> Result<()> {
    let text = fs::read_to_string(unit)?;
    let commands = text.lines().filter_map(|line| {
        let (key, command) = line.split_once('=')?;
        key.starts_with("Exec").then_some(command)
    });
    let mut seen = 0;
    for command in commands {
        let command = command.trim_start_matches(['+', '-', '@', '!', ':']);
        let program = command.split_whitespace().next().unwrap_or_default();
        ensure!(
            ["/usr/bin/skerry", "/usr/lib/skerry/trial", "/bin/sh"].contains(&program),
            "the unit runs {program}, which not every machine has"
        );
        seen += 1;
    }
    ensure!(seen > 0, "the unit runs nothing");
    Ok(())
}

/// Packages of the binary under test, in the folder that the machine sees as `/mnt`.
pub(crate) struct Packages {
    folder: PathBuf,
}

impl Packages {
    /// The one that is shipped. Making it twice gives the same bytes.
    pub(crate) fn make(world: &World) -> Result<Self> {
        let folder = world.folder().join("shared");
        fs::create_dir_all(&folder)?;
        let binary = folder.join("skerry");
        run(Command::new("strip")
            .arg("-o")
            .args([&binary, &workspace::skerry()]))?;
        let architecture = run(Command::new("dpkg").arg("--print-architecture"))?;
        let mut made = Vec::new();
        for name in ["first", "second"] {
            let mut command = Command::new(workspace::root().join("cross/package"));
            command
                .arg(architecture.trim())
                .args([&binary, &folder.join(name)]);
            // What is packed is a matter of xz, which takes a minute for a test's binary.
            command.env("DPKG_DEB_COMPRESSOR_TYPE", "none");
            made.push(PathBuf::from(run(&mut command)?.trim()));
        }
        let equal = run(Command::new("cmp").args(&made));
        equal.context("the same binary gives two packages")?;
        fs::rename(&made[0], folder.join("skerry.deb"))?;
        fs::remove_file(&made[1])?;
        Ok(Self { folder })
    }

    /// One of another version, changed by a script that runs in its unpacked folder.
    fn version(&self, version: &str, change: &str) -> Result<String> {
        let root = self.folder.join("unpacked");
        let name = format!("skerry-{version}.deb");
        run(Command::new("dpkg-deb")
            .arg("-R")
            .args([&self.folder.join("skerry.deb"), &root]))?;
        let script =
            format!(r#"sed -i "s/^Version:.*/Version: {version}/" DEBIAN/control; {change}"#);
        run(Command::new("sh")
            .args(["-euc", &script])
            .current_dir(&root))?;
        run(Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Znone", "-b"])
            .args([&root, &self.folder.join(&name)]))?;
        fs::remove_dir_all(root)?;
        Ok(format!("/mnt/{name}"))
    }

    pub(crate) fn machine(&self, world: &World) -> Result<Machine> {
        let log = world.logs().join("machine.log");
        Machine::boot(&world.folder().join("machine"), &self.folder, &log)
    }
}

fn run(command: &mut Command) -> Result<String> {
    let output = process::run(command, wait::START)?;
    ensure!(output.code == Some(0), "{command:?}: {}", output.text());
    Ok(output.stdout)
}

pub(crate) fn install(machine: &Machine, package: &str) -> Result<()> {
    machine.succeeds(&format!("dpkg --force-confold --install {package}"))?;
    machine.wait_until("the node serves", "skerry status")
}

/// The id of the node's process.
fn node(machine: &Machine) -> Result<String> {
    machine.succeeds("systemctl show --property=MainPID --value skerry")
}

/// What was published before an upgrade or a removal.
pub(crate) fn publish(machine: &Machine, message: &str) -> Result<()> {
    let script = format!("mosquitto_pub -q 1 -t plant/kept -m '{message}'");
    machine.succeeds(&script)?;
    Ok(())
}

pub(crate) fn is_logged(machine: &Machine, message: &str) -> Result<()> {
    let logged = machine.succeeds("skerry log cat default --json --data-dir /var/lib/skerry")?;
    ensure!(
        logged.contains(message),
        "{message} is not in the log: {logged}"
    );
    Ok(())
}

/// From the first installation to purging, as an operator sees it.
pub(crate) fn lifecycle(world: &World) -> Result<()> {
    let packages = Packages::make(world)?;
    let machine = packages.machine(world)?;
    install(&machine, "/mnt/skerry.deb")?;
    machine.succeeds("systemctl is-enabled skerry skerry-first-boot")?;
    publish(&machine, "before-the-upgrade")?;

    // A changed config is taken up without another process, and kept by an upgrade that brings
    // another one.
    machine.succeeds("sed -i 's/^name = .*/name = \"vessel-7\"/' /etc/skerry/skerry.toml")?;
    let first = node(&machine)?;
    machine.succeeds("systemctl reload skerry")?;
    machine.wait_until("the new name counts", "skerry status | grep -q vessel-7")?;
    ensure!(node(&machine)? == first, "a reload started another process");
    confined(&machine)?;
    models(world, &machine)?;

    let another_config = "echo '# of another version' >>etc/skerry/skerry.toml";
    let package = packages.version("0.9.1", another_config)?;
    let proven = "mkdir -p /run/systemd/system/skerry.service.d; printf \
                  '[Service]\\nEnvironment=SKERRY_PROVEN_AFTER=1s\\n' >/run/systemd/system/skerry.service.d/t.conf";
    machine.succeeds(proven)?;
    machine.succeeds(&format!("dpkg --force-confold --install {package}"))?;
    machine.wait_until(
        "the upgraded node serves",
        "skerry status | grep -q vessel-7",
    )?;
    ensure!(node(&machine)? != first, "the version before still runs");
    is_logged(&machine, "before-the-upgrade")?;
    machine.wait_until("its trial ends", "test ! -e /usr/lib/skerry/on-trial")?;
    machine.succeeds("test -e /usr/lib/skerry/previous")?;

    machine.succeeds("dpkg --remove skerry")?;
    machine.succeeds(
        "! systemctl is-active skerry; test ! -e /usr/lib/skerry; test ! -e /usr/bin/skerry",
    )?;
    machine.succeeds("grep -q vessel-7 /etc/skerry/skerry.toml")?;
    machine.succeeds("ls /var/lib/private/skerry/streams")?;
    install(&machine, "/mnt/skerry.deb")?;
    is_logged(&machine, "before-the-upgrade")?;

    // What somebody else put there stays, and these are the test's.
    machine.succeeds("rm /etc/skerry/bearing.onnx /etc/skerry/golden.json; dpkg --purge skerry")?;
    let left = machine.succeeds(
        "for path in /etc/skerry /usr/lib/skerry /var/lib/skerry /var/lib/private/skerry \
         /etc/systemd/system/multi-user.target.wants/skerry*; do \
         test -e $path -o -L $path && echo $path; done; true",
    )?;
    ensure!(left.is_empty(), "purging leaves {left}");
    Ok(())
}

/// The kernel's own account of what the node may, and what journald has of it.
fn confined(machine: &Machine) -> Result<()> {
    let id = node(machine)?;
    let status = machine.succeeds(&format!("cat /proc/{id}/status"))?;
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000"] {
        ensure!(status.contains(line), "{line} is not in {status}");
    }
    let is_root = status.lines().any(|line| line.starts_with("Uid:\t0"));
    ensure!(!is_root, "the node is root: {status}");
    let told = machine.succeeds("journalctl --unit skerry --output json --no-pager")?;
    let mut of_the_node = 0;
    for line in told.lines() {
        let entry: Value = serde_json::from_str(line)?;
        let message = entry["MESSAGE"].as_str().unwrap_or_default();
        // One line of each run, begun by its level: journald has the time and the priority.
        if entry["_PID"] == *id && message.contains("SIGHUP") {
            let is_plain = message.trim_start().starts_with("INFO SIGHUP");
            ensure!(is_plain && entry["PRIORITY"] == "6", "journald has {line}");
            of_the_node += 1;
        }
    }
    ensure!(of_the_node > 0, "journald has nothing of {id}: {told}");
    Ok(())
}

/// The child that runs the models works under the unit's restrictions.
fn models(world: &World, machine: &Machine) -> Result<()> {
    let bearing = workspace::root().join("inference/models/bearing/bearing.onnx");
    let shared = world.folder().join("shared");
    fs::copy(&bearing, shared.join("bearing.onnx"))?;
    fs::copy(
        bearing.with_file_name("golden.json"),
        shared.join("golden.json"),
    )?;
    let columns = ["a", "b", "c", "d"];
    let inputs = columns.map(|name| format!("{{ mqtt = \"plant/pump1\", pointer = \"/{name}\" }}"));
    let config = format!(
        "\n[[model]]\nname = \"bearing\"\nfile = \"bearing.onnx\"\nassets = [\"pump1\"]\n\
         window = 32\nstep = 32\nthreshold = 0.8\ninputs = [ {} ]\n",
        inputs.join(", ")
    );
    write(&shared.join("model.toml"), &config)?;
    let (rows, score) = golden(&bearing)?
        .into_iter()
        .find(|(_, score)| *score > 0.5)
        .context("no golden case of a worn bearing")?;
    let lines: Vec<_> = rows
        .iter()
        .map(|row| {
            let fields = columns.iter().zip(row.as_array().into_iter().flatten());
            let fields = fields.map(|(name, value)| ((*name).to_owned(), value.clone()));
            Value::Object(fields.collect()).to_string()
        })
        .collect();
    write(&shared.join("rows"), &(lines.join("\n") + "\n"))?;
    machine.succeeds(
        "cp /mnt/bearing.onnx /mnt/golden.json /etc/skerry; \
         cat /mnt/model.toml >>/etc/skerry/skerry.toml; systemctl reload skerry",
    )?;
    machine.wait_until("the model is loaded", "skerry status | grep -q bearing")?;
    machine.succeeds("mosquitto_pub -q 1 -t plant/pump1 -l </mnt/rows")?;
    let scores = "skerry log cat scores --json --data-dir /var/lib/skerry";
    machine.wait_until("there is a score", &format!("{scores} | grep -q bearing"))?;
    let scored = machine.succeeds(scores)?;
    let record: Value = serde_json::from_str(&scored)?;
    let told = record["payload"]["score"].as_f64().context("no score")?;
    ensure!(
        (told - score).abs() < 1e-4,
        "{told} is not {score}: {scored}"
    );
    Ok(())
}

pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// A node that says that it is ready, and from then on nothing.
const HANGS: &str = r#"#!/bin/sh
case $1 in
    version) echo skerry ;;
    run) exec python3 -c '
import os, socket, time
told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
told.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
told.send(b"READY=1")
time.sleep(600)' ;;
esac
"#;

/// Versions that do not start, hang, crash, or take the config for wrong: the version before is back by
/// itself, with all its data.
pub(crate) fn bad_versions(world: &World) -> Result<()> {
    let packages = Packages::make(world)?;
    let machine = packages.machine(world)?;
    install(&machine, "/mnt/skerry.deb")?;
    publish(&machine, "kept")?;
    let good = machine.succeeds("sha256sum </usr/bin/skerry")?;

    // A crash each time, a config that is taken for wrong, and one that comes up and then stands still.
    let ends = |code| {
        format!("printf '#!/bin/sh\\ntest $1 = version && echo skerry && exit\\nexit {code}\\n'")
    };
    fs::write(packages.folder.join("hangs"), HANGS)?;
    machine.succeeds(
        "mkdir -p /run/systemd/system/skerry.service.d; \
         printf '[Service]\\nWatchdogSec=5s\\n' >/run/systemd/system/skerry.service.d/t.conf",
    )?;
    for (version, says, failures) in [
        ("0.9.1", ends(70), 3),
        ("0.9.2", ends(2), 1),
        ("0.9.3", "cat ../hangs".to_owned(), 3),
    ] {
        // Says which version it is, and is good for nothing else.
        let bad = format!("{says} | sed 's/echo skerry/& {version}/' >usr/bin/skerry");
        let package = packages.version(version, &bad)?;
        machine.succeeds(&format!("dpkg --install {package}"))?;
        let back = format!("sha256sum </usr/bin/skerry | grep -q '{good}'");
        machine.wait_until("the version before is back", &back)?;
        machine.wait_until("the node serves", "skerry status")?;
        is_logged(&machine, "kept")?;
        machine.succeeds("test ! -e /usr/lib/skerry/on-trial")?;
        let told = machine.succeeds("journalctl --unit skerry --output cat --no-pager")?;
        let reason = format!("gone back from skerry {version}");
        ensure!(told.contains(&reason), "no {reason:?} in {told}");
        let counted = told.matches("before the version before comes back").count();
        ensure!(
            counted + 1 >= failures,
            "{version} failed {counted} times: {told}"
        );
    }

    machine.succeeds("rm /run/systemd/system/skerry.service.d/t.conf; systemctl daemon-reload")?;

    // One bad version upon another: the good one is what is gone back to.
    machine.succeeds("systemctl stop skerry")?;
    for version in ["0.9.1", "0.9.2"] {
        machine.succeeds(&format!("dpkg --install /mnt/skerry-{version}.deb"))?;
    }
    let run = machine.run("systemctl start skerry")?;
    ensure!(run.code != Some(0), "a bad version started: {}", run.text());
    machine.wait_until("the node serves", "skerry status")?;
    ensure!(
        machine.succeeds("sha256sum </usr/bin/skerry")? == good,
        "it went back to a bad version"
    );

    // One that this machine cannot even execute is out before the running node has noticed.
    let running = node(&machine)?;
    let package = packages.version("0.9.4", "printf 'for another machine' >usr/bin/skerry")?;
    let refused = machine.run(&format!("dpkg --install {package}"))?;
    ensure!(
        refused.code != Some(0),
        "it was installed: {}",
        refused.text()
    );
    let reason = "this machine cannot run the new /usr/bin/skerry";
    ensure!(
        refused.stderr.contains(reason),
        "no reason in {}",
        refused.stderr
    );
    ensure!(
        machine.succeeds("sha256sum </usr/bin/skerry")? == good,
        "it is still there"
    );
    ensure!(node(&machine)? == running, "the running node was touched");

    // And an operator may go back without any failure.
    install(
        &machine,
        &packages.version("0.9.5", "echo >>usr/lib/skerry/trial")?,
    )?;
    machine.succeeds(
        "printf 1 >>/usr/bin/skerry.next; cat /usr/bin/skerry /usr/bin/skerry.next \
                      >/usr/bin/skerry.new; chmod 755 /usr/bin/skerry.new; \
                      mv /usr/bin/skerry.new /usr/bin/skerry",
    )?;
    machine.succeeds("/usr/lib/skerry/trial back")?;
    ensure!(
        machine.succeeds("sha256sum </usr/bin/skerry")? == good,
        "it did not go back"
    );
    machine.wait_until("the node serves", "skerry status")?;
    is_logged(&machine, "kept")
}

/// Machines on which it would not work: refused before anything is changed, with what to do.
pub(crate) fn refused(world: &World) -> Result<()> {
    let packages = Packages::make(world)?;
    let machine = packages.machine(world)?;
    let refuses = |before: &str, reason: &str| -> Result<()> {
        let output = machine.run(&format!("{before} dpkg --install /mnt/skerry.deb"))?;
        let text = output.text();
        ensure!(output.code != Some(0), "it was installed: {text}");
        ensure!(output.stderr.contains(reason), "no {reason:?} in {text}");
        machine.succeeds("test ! -e /usr/bin/skerry; test ! -e /etc/skerry")?;
        Ok(())
    };
    refuses(
        "setarch --uname-2.6",
        "Linux 3.17 or later is needed, and this is 2.6",
    )?;

    // A /usr whose changes go to a small disk.
    machine.succeeds(
        "mkdir /tmp/small; mount -t tmpfs -o size=12m tmpfs /tmp/small; mkdir /tmp/small/u /tmp/small/w; \
         mount -t overlay -o lowerdir=/usr,upperdir=/tmp/small/u,workdir=/tmp/small/w overlay /usr",
    )?;
    refuses("", "MiB in /usr, and 1")?;
    machine.succeeds("umount --lazy /usr")?;

    // One for another machine is dpkg's own to refuse.
    let foreign = packages.version(
        "0.9.1",
        "sed -i 's/^Architecture:.*/Architecture: s390x/' DEBIAN/control",
    )?;
    let output = machine.run(&format!("dpkg --install {foreign}"))?;
    let reason = "does not match system";
    ensure!(
        output.stderr.contains(reason),
        "no {reason:?} in {}",
        output.text()
    );

    let mut command = Command::new(workspace::root().join("cross/package"));
    command.args(["armhf"]).arg(packages.folder.join("skerry"));
    let output = process::run(&mut command, wait::START)?;
    let reason = "not for armhf";
    ensure!(
        output.stderr.contains(reason),
        "no {reason:?} in {}",
        output.text()
    );
    Ok(())
}
