//! A box that nobody configures by hand, under a systemd of its own: by its boot partition, and by a
//! USB stick. The stick is a loop device, and a rule says that it is on USB; all else is as on a box.

use std::fs;
use std::path::Path;

use skerry_tests::machine::Machine;
use skerry_tests::stick::Stick;
use skerry_tests::world::World;
use skerry_tests::{Context as _, Result, ensure};

use crate::packages::{Packages, install, is_logged, publish, write};

const SECRET: &str = "of the central side";

/// What the node needs two credentials for: one that it cannot even open its log without, and one
/// that is a secret between it and the cluster.
fn config(encrypted: bool) -> String {
    let key = match encrypted {
        true => "encryption_key_credential = \"log.key\"\n",
        false => "",
    };
    format!(
        "[node]\nname = \"site-{{machine}}\"\n[store]\n{key}[mqtt]\nlisten = \"127.0.0.1:1883\"\n\
         [kafka]\nbrokers = [\"127.0.0.1:9\"]\nuser = \"site\"\n\
         password_file = \"credential:kafka-password\"\ntls = {{}}\n"
    )
}

/// The folder `skerry` of a stick or of a boot partition.
fn prepare(folder: &Path, encrypted: bool) -> Result<()> {
    let credentials = folder.join("credentials");
    fs::create_dir_all(&credentials)?;
    write(&folder.join("skerry.toml"), &config(encrypted))?;
    write(&credentials.join("kafka-password"), SECRET)
}

/// What the node's own process is given, and what the files are for everybody else.
fn credentials_are_handed_over(machine: &Machine) -> Result<()> {
    let script = "pid=$(systemctl show --property=MainPID --value skerry); \
                  cat /proc/$pid/root/run/credentials/skerry.service/kafka-password";
    let handed = machine.succeeds(script)?;
    ensure!(handed == SECRET, "the node was handed {handed:?}");
    let modes = machine.succeeds("stat -c '%a %U' /etc/skerry/credentials/*")?;
    let private = modes.lines().all(|mode| mode == "600 root");
    ensure!(private, "others can read what is in /etc/skerry: {modes}");
    Ok(())
}

fn is_named_after_the_machine(machine: &Machine) -> Result<()> {
    let config = machine.succeeds("grep ^name /etc/skerry/skerry.toml")?;
    let id = machine.succeeds("cat /etc/machine-id")?;
    let is_its_own = config.contains("\"site-") && !config.contains("{machine}");
    ensure!(is_its_own, "the node is called {config}");
    ensure!(
        !config.contains(&id[..8]),
        "the machine's id is in {config}"
    );
    let name = config.split('"').nth(1).context("no name")?;
    machine.wait_until(
        "the node serves by that name",
        &format!("skerry status | grep -q '{name}'"),
    )
}

/// An image that was written to an SD card: the package is in it, and the first start finds what lies
/// on the boot partition.
pub(crate) fn partition(world: &World) -> Result<()> {
    let packages = Packages::make(world)?;
    let machine = packages.machine(world)?;
    install(&machine, "/mnt/skerry.deb")?;
    // As an image has it: installed, and never started.
    machine.succeeds("systemctl stop skerry; rm -r /var/lib/private/skerry")?;
    prepare(&world.folder().join("shared/boot"), true)?;
    machine.succeeds(
        "mkdir -p /boot/skerry; cp -r /mnt/boot/. /boot/skerry; skerry log new-key /boot/skerry/credentials/log.key",
    )?;

    // One mistake, and nothing of it is taken over.
    machine.succeeds("sed -i 's/listen/listne/' /boot/skerry/skerry.toml")?;
    let refused = machine.run("systemctl start skerry-first-boot")?;
    ensure!(refused.code != Some(0), "a wrong config was taken over");
    let told = machine.succeeds(
        "cat /boot/skerry/skerry-result.txt; journalctl --unit skerry-first-boot --output cat --no-pager",
    )?;
    for reason in ["NOT set up", "/boot/skerry/skerry.toml:", "listne"] {
        ensure!(told.matches(reason).count() >= 2, "no {reason:?} in {told}");
    }
    machine.succeeds(
        "cmp /etc/skerry/skerry.toml /usr/share/skerry/skerry.toml; test ! -e /etc/skerry/credentials; \
         ! systemctl is-active skerry",
    )?;

    machine.succeeds(
        "sed -i 's/listne/listen/' /boot/skerry/skerry.toml; systemctl restart skerry-first-boot",
    )?;
    machine.wait_until("the node serves", "skerry status")?;
    is_named_after_the_machine(&machine)?;
    credentials_are_handed_over(&machine)?;
    machine.succeeds("test -z \"$(ls /boot/skerry/credentials)\"")?;
    publish(&machine, "never in the clear")?;
    let read = machine.run("skerry log cat default --data-dir /var/lib/skerry")?;
    let text = read.text();
    ensure!(
        read.code != Some(0) && text.contains("key"),
        "read without the key: {text}"
    );
    machine.succeeds("! grep -r 'never in the clear' /var/lib/private/skerry/streams")?;

    // Every later start finds the same there, and lets the node be.
    let before = machine.succeeds("systemctl show --property=MainPID --value skerry")?;
    machine.succeeds("systemctl restart skerry-first-boot")?;
    let after = machine.succeeds("systemctl show --property=MainPID --value skerry")?;
    ensure!(
        before == after,
        "the second start of the box touched the node"
    );
    Ok(())
}

/// A box that runs with what its package brought; then somebody comes with a stick.
pub(crate) fn stick(world: &World) -> Result<()> {
    let packages = Packages::make(world)?;
    let machine = packages.machine(world)?;
    install(&machine, "/mnt/skerry.deb")?;
    machine.succeeds(
        "mkdir -p /run/udev/rules.d; \
         echo 'SUBSYSTEM==\"block\", KERNEL==\"loop*\", ENV{ID_BUS}=\"usb\"' >/run/udev/rules.d/61-tests.rules; \
         systemctl start systemd-udevd; udevadm control --reload",
    )?;
    publish(&machine, "before the stick")?;

    let content = world.folder().join("stick");
    prepare(&content.join("skerry"), false)?;
    let image = world.folder().join("shared/stick.img");
    let mut stick = Stick::make(image, "SKERRY", &content)?;
    stick.plug_in(&machine)?;
    let taken = "grep -q '^name = \"site-' /etc/skerry/skerry.toml";
    machine.wait_until("the stick is taken over", taken)?;
    is_named_after_the_machine(&machine)?;
    credentials_are_handed_over(&machine)?;
    is_logged(&machine, "before the stick")?;
    machine.wait_until("the stick is let go of", "! mountpoint -q /media/skerry")?;
    stick.unplug()?;
    let told = stick.read("skerry/skerry-result.txt")?;
    ensure!(
        told.contains("is set up") && !told.contains("NOT"),
        "the stick tells {told:?}"
    );
    ensure!(
        stick.read("skerry/credentials/kafka-password")? == SECRET,
        "it is for other boxes too"
    );

    // Another stick, for a box that is configured by now: it stays as it is, and the stick says why.
    let before = machine.succeeds("sha256sum /etc/skerry/skerry.toml")?;
    let config = config(false).replace("site-", "thief-");
    write(&content.join("skerry/skerry.toml"), &config)?;
    let mut other = Stick::make(world.folder().join("shared/other.img"), "SKERRY", &content)?;
    other.plug_in(&machine)?;
    let looked =
        "journalctl --unit skerry-stick --output cat --no-pager | grep -q 'is there already'";
    machine.wait_until("the other stick is looked at", looked)?;
    machine.wait_until("it is let go of", "! mountpoint -q /media/skerry")?;
    other.unplug()?;
    let told = other.read("skerry/skerry-result.txt")?;
    ensure!(
        told.contains("is there already"),
        "the stick tells {told:?}"
    );
    let after = machine.succeeds("sha256sum /etc/skerry/skerry.toml")?;
    ensure!(before == after, "a stick changed a box that was configured");
    machine.succeeds("skerry status")?;
    Ok(())
}
