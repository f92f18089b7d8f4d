use super::*;
use crate::Keys;

const REACHED: Reached<'static> = Reached {
    mark: Mark {
        epoch: 1,
        boot: 2,
        applied: 3,
    },
    heads: &[],
    changed: &[],
};

fn cipher(key: u8) -> Option<Arc<Cipher>> {
    let cipher = Cipher::new(&Keys::new([key; 32], []));
    Some(Arc::new(cipher.expect("random bytes")))
}

fn put(value: &'static str) -> Change {
    Change::Put {
        bucket: "b".into(),
        key: "k".into(),
        value: value.into(),
    }
}

#[test]
fn a_catalog_opens_with_its_own_key_only() {
    let directory = tempfile::tempdir().expect("a directory");
    for (written, keys) in [
        (None, [cipher(1), cipher(2)]),
        (cipher(1), [cipher(2), None]),
    ] {
        let catalog = Catalog::open(directory.path(), written.clone());
        catalog.wipe().expect("wiped");
        catalog.apply(&[put("value")], REACHED).expect("applied");
        drop(catalog);
        for other in keys {
            let catalog = Catalog::open(directory.path(), other);
            assert_eq!(catalog.opens().ok(), Some(false));
            assert_eq!(catalog.mark().ok(), Some(Some(REACHED.mark)));
        }
        let catalog = Catalog::open(directory.path(), written);
        assert_eq!(catalog.opens().ok(), Some(true));
        assert_eq!(
            catalog.get("b", b"k").ok().flatten().as_deref(),
            Some(&b"value"[..])
        );
    }
}

/// While it is rebuilt, nobody takes for missing what is yet to come.
#[test]
fn nothing_is_read_of_a_catalog_that_is_half_rebuilt() {
    let directory = tempfile::tempdir().expect("a directory");
    let catalog = Catalog::open(directory.path(), None);
    catalog.apply(&[put("value")], REACHED).expect("applied");
    catalog.wipe().expect("wiped");
    assert!(catalog.get("b", b"k").is_err() && catalog.scan("b", b"").is_err());
    assert!(!catalog.in_order());
    catalog.apply(&[put("value")], REACHED).expect("applied");
    assert!(catalog.get("b", b"k").is_err());
    catalog.finish();
    assert!(catalog.in_order());
    let value = catalog.get("b", b"k").expect("in order");
    assert_eq!(value.as_deref(), Some(&b"value"[..]));
}

#[test]
fn an_entry_that_somebody_altered_puts_the_catalog_out_of_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let catalog = Catalog::open(directory.path(), cipher(1));
    catalog.apply(&[put("value")], REACHED).expect("applied");
    let place = catalog.form.place(&entry_key(b'e', "b", b"k")).into_owned();
    let alter = |db: &sled::Db| {
        let mut stored = db.get(&place)?.expect("applied").to_vec();
        *stored.last_mut().expect("a tag") ^= 1;
        db.insert(&place, stored).map(|_| ())
    };
    catalog.with(alter).expect("altered");
    assert!(catalog.scan("b", b"").is_err() && !catalog.in_order());
    assert!(catalog.get("b", b"k").is_err());
}
