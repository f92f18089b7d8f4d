//! Which box this is: what it can be told from others by, before anybody has named it.

use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What the machine id is hashed with, as systemd asks of whoever shows an id outside the machine
/// (machine-id(5)): nobody learns the id from it, and no other program comes to the same one.
/// It never changes, or every node would get another name.
const APPLICATION: [u8; 16] = 0x6b3d_94c1_27f0_4e58_a1d5_0c9e_73b2_684f_u128.to_be_bytes();

/// Hexadecimal digits of `{machine}`: 64 bits, so that among ten thousand nodes two share one with
/// a probability of one in 10^11, and a name that people can still read to each other.
const ID_DIGITS: usize = 16;

/// What a box is called before anybody has called it anything: so are all the others.
const NO_NAMES: [&str; 6] = [
    "",
    "(none)",
    "localhost",
    "localhost.localdomain",
    "raspberrypi",
    "debian",
];

/// What firmware says where nobody has filled in a serial number.
const NO_SERIALS: [&str; 6] = [
    "default-string",
    "none",
    "not-specified",
    "system-serial-number",
    "to-be-filled-by-o.e.m.",
    "0123456789",
];

/// What is known of this box; why not, where something is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    pub id: Result<String, String>,
    pub hostname: Result<String, String>,
    pub serial: Result<String, String>,
    /// Of network interfaces that are hardware, as they were made; in the order of their names.
    pub macs: Vec<String>,
}

impl Machine {
    /// Reads it all from the file system at `root`.
    pub fn read(root: &Path) -> Self {
        Self {
            id: id(root),
            hostname: hostname(root),
            serial: serial(root),
            macs: macs(&root.join("sys/class/net")),
        }
    }

    pub fn mac(&self) -> Result<String, String> {
        let first = self.macs.first().cloned();
        first.ok_or_else(|| "this box has no network interface with a MAC address".to_owned())
    }

    /// All that `which` may say to mean this box, in the form of [`plain`].
    pub fn known_by(&self) -> BTreeSet<String> {
        let single = [&self.id, &self.hostname, &self.serial];
        let single = single.into_iter().filter_map(|known| known.as_ref().ok());
        single.chain(&self.macs).map(|known| plain(known)).collect()
    }
}

impl std::fmt::Display for Machine {
    /// One line, for a person with a list of boxes or a sticker to compare it with.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut known = Vec::new();
        for (what, value) in [
            ("machine", &self.id),
            ("serial", &self.serial),
            ("hostname", &self.hostname),
        ] {
            known.extend(value.as_ref().ok().map(|value| format!("{what} {value}")));
        }
        known.extend(self.macs.iter().map(|mac| format!("MAC {mac}")));
        if known.is_empty() {
            return f.write_str("without any id, serial number, MAC address or hostname");
        }
        f.write_str(&known.join(", "))
    }
}

/// However it is written: `B8-27-EB-01-02-03` is `b827eb010203`.
pub fn plain(text: &str) -> String {
    let kept = text.chars().filter(|c| !matches!(c, ':' | '-' | ' '));
    kept.flat_map(char::to_lowercase).collect()
}

/// In the characters that a node's name may have; others become `-`.
fn nameable(text: &str) -> String {
    let fit = |c: char| match c {
        'a'..='z' | '0'..='9' | '.' | '_' | '-' => c,
        'A'..='Z' => c.to_ascii_lowercase(),
        _ => '-',
    };
    let name: String = text.trim().chars().map(fit).take(64).collect();
    name.trim_matches('-').to_owned()
}

/// The machine id as this program alone has it.
fn id(root: &Path) -> Result<String, String> {
    let path = root.join("etc/machine-id");
    let text = fs::read_to_string(&path)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    // systemd puts it there for as long as this boot lasts, where /etc cannot be written to.
    if root.join("run/machine-id").exists() {
        return Err(format!(
            "{} is for this boot alone, as /etc could not be written to: the next boot would be \
             another node",
            path.display()
        ));
    }
    let text = text.trim();
    let raw = u128::from_str_radix(text, 16)
        .ok()
        .filter(|id| text.len() == 32 && *id != 0);
    let raw = raw.ok_or_else(|| {
        format!(
            "{} holds no machine id (`systemd-machine-id-setup` makes one)",
            path.display()
        )
    })?;
    let mut hex = format!(
        "{:032x}",
        application_specific(raw.to_be_bytes(), APPLICATION)
    );
    hex.truncate(ID_DIGITS);
    Ok(hex)
}

/// As `sd_id128_get_machine_app_specific` has it: HMAC-SHA256 of the application under the id, its
/// first half, made a random UUID.
fn application_specific(id: [u8; 16], application: [u8; 16]) -> u128 {
    const BLOCK: usize = 64;
    let keyed = |pad: u8| {
        let mut block = [pad; BLOCK];
        for (byte, key) in block.iter_mut().zip(id) {
            *byte ^= key;
        }
        Sha256::new_with_prefix(block)
    };
    let inner = keyed(0x36).chain_update(application).finalize();
    let outer = keyed(0x5c).chain_update(inner).finalize();
    let half = outer[..16].try_into().expect("a digest has 32 bytes");
    let (version, variant) = (0xf000_u128 << 64, 0xc000_u128 << 48);
    (u128::from_be_bytes(half) & !version & !variant) | (0x4000 << 64) | (0x8000 << 48)
}

fn hostname(root: &Path) -> Result<String, String> {
    let path = root.join("proc/sys/kernel/hostname");
    let text =
        fs::read(&path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let text = String::from_utf8_lossy(&text);
    let name = nameable(&text);
    match NO_NAMES.contains(&name.as_str()) || text.trim() == "(none)" {
        true => Err(format!(
            "this box's hostname is `{}`, which is what every new box is called",
            text.trim().escape_default()
        )),
        false => Ok(name),
    }
}

/// What the board says: the device tree on ARM, SMBIOS on others.
fn serial(root: &Path) -> Result<String, String> {
    let places = [
        "sys/firmware/devicetree/base/serial-number",
        "sys/class/dmi/id/product_serial",
        "sys/class/dmi/id/board_serial",
    ];
    let mut found = places.iter().filter_map(|place| {
        let bytes = fs::read(root.join(place)).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let serial = nameable(text.trim_end_matches('\0'));
        let is_one = !NO_SERIALS.contains(&serial.as_str()) && serial.chars().any(|c| c != '0');
        is_one.then_some(serial)
    });
    let none = || "this board tells no serial number".to_owned();
    found.next().ok_or_else(none)
}

fn macs(interfaces: &Path) -> Vec<String> {
    const ETHERNET: &str = "1";
    const PERMANENT: &str = "0";
    let entries = fs::read_dir(interfaces).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    let read = |path: &Path, name: &str| {
        let text = fs::read_to_string(path.join(name)).unwrap_or_default();
        text.trim().to_ascii_lowercase()
    };
    let own = paths.iter().filter(|path| {
        path.join("device").exists()
            && read(path, "type") == ETHERNET
            && read(path, "addr_assign_type") == PERMANENT
    });
    let addresses = own.map(|path| read(path, "address"));
    addresses
        .filter(|mac| mac.len() == 17 && mac.chars().any(|c| !matches!(c, '0' | ':')))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, bytes: impl AsRef<[u8]>) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("in the root")).expect("a folder");
        fs::write(path, bytes).expect("written");
    }

    /// A board with an id, a serial number, a hostname and two interfaces.
    fn board() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        let at = root.path();
        write(at, "etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        write(at, "proc/sys/kernel/hostname", "Press_3.hall\n");
        let serial = "sys/firmware/devicetree/base/serial-number";
        write(at, serial, "10000000ABCDEF01\0");
        for (name, address, assigned, is_hardware) in [
            ("eth0", "B8:27:EB:01:02:03", "0", true),
            ("wlan0", "b8:27:eb:0a:0b:0c", "0", true),
            ("wlan1", "02:11:22:33:44:55", "1", true),
            ("br0", "b8:27:eb:ff:ff:ff", "0", false),
            ("can0", "00:00:00:00:00:00", "0", true),
        ] {
            let folder = format!("sys/class/net/{name}");
            write(at, &format!("{folder}/address"), format!("{address}\n"));
            write(at, &format!("{folder}/addr_assign_type"), assigned);
            write(at, &format!("{folder}/type"), "1");
            if is_hardware {
                write(at, &format!("{folder}/device/uevent"), "");
            }
        }
        root
    }

    #[test]
    fn an_id_is_what_systemd_makes_of_it() {
        // Computed apart from this code, in a way that agreed with `systemd-id128 machine-id
        // --app-specific=…` on a machine of which it can be asked.
        let id = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef_u128;
        let hashed = application_specific(id.to_be_bytes(), APPLICATION);
        assert_eq!(format!("{hashed:032x}"), "6058770b66474363b75bd713388fecb2");
    }

    #[test]
    fn a_board_is_known_by_what_its_maker_gave_it() {
        let root = board();
        let machine = Machine::read(root.path());
        assert_eq!(machine.hostname.as_deref(), Ok("press_3.hall"));
        assert_eq!(machine.serial.as_deref(), Ok("10000000abcdef01"));
        assert_eq!(machine.macs, ["b8:27:eb:01:02:03", "b8:27:eb:0a:0b:0c"]);
        assert_eq!(machine.mac().as_deref(), Ok("b8:27:eb:01:02:03"));
        let id = machine.id.clone().expect("an id");
        assert!(id.len() == ID_DIGITS && !"0123456789abcdef0123456789abcdef".contains(&id));
        for known in ["B8-27-EB-0A-0B-0C", "10000000ABCDEF01", &id] {
            assert!(machine.known_by().contains(&plain(known)), "{known}");
        }
        assert!(machine.to_string().contains("serial 10000000abcdef01"));
    }

    #[test]
    fn an_id_that_the_next_boot_does_not_have_is_none() {
        for (text, told) in [
            ("uninitialized\n", "holds no machine id"),
            ("", "holds no machine id"),
            ("00000000000000000000000000000000", "holds no machine id"),
        ] {
            let root = board();
            write(root.path(), "etc/machine-id", text);
            let why = Machine::read(root.path()).id.expect_err(text);
            assert!(why.contains(told), "{why}");
        }
        let root = board();
        write(root.path(), "run/machine-id", "");
        let why = Machine::read(root.path()).id.expect_err("for one boot");
        assert!(why.contains("another node"), "{why}");
        let nothing = Machine::read(&root.path().join("nowhere"));
        assert!(nothing.id.is_err() && nothing.serial.is_err() && nothing.mac().is_err());
        assert!(nothing.to_string().starts_with("without"));
    }

    #[test]
    fn an_odd_hostname_is_made_to_fit_a_name_or_told() {
        let named = |name: &[u8]| {
            let root = board();
            write(root.path(), "proc/sys/kernel/hostname", name);
            Machine::read(root.path()).hostname
        };
        assert_eq!(named("Größe 7\n".as_bytes()).as_deref(), Ok("gr--e-7"));
        assert_eq!(named(b"a\"b\\c\xff\n").as_deref(), Ok("a-b-c"));
        assert_eq!(named(&[b'x'; 200]).map(|name| name.len()), Ok(64));
        for new in ["localhost\n", "\n", "(none)\n", "raspberrypi\n", "---\n"] {
            let why = named(new.as_bytes()).expect_err(new);
            assert!(why.contains("every new box"), "{why}");
        }
    }

    #[test]
    fn a_serial_number_that_nobody_filled_in_is_none() {
        for none in ["To be filled by O.E.M.\n", "0\n", "00000000\0", "None", ""] {
            let root = board();
            let path = "sys/firmware/devicetree/base/serial-number";
            write(root.path(), path, none);
            assert!(Machine::read(root.path()).serial.is_err(), "{none:?}");
        }
    }
}
