//! Bases that are damaged or missing: the store is refused, or opened without the objects that need them.

use redb::{Database, ReadableTable};

use super::{
    packed_rows::{Program, long, objects, rows},
    quarantine::aside,
    *,
};
use crate::{DamagedBases, OpenError, Store, embedded::stored_base::BASES};

/// A store with two objects of each word.
async fn with_words(path: &Path, words: &[&str]) {
    let store = Program::new(1).open(path);
    for word in words {
        for n in 0..2 {
            store.write_one(put(&format!("{word}{n}"), Expect::Absent, &long(word))).await.unwrap();
        }
    }
}

/// Puts the base of `gamma` in the place of that of `alpha`, and removes that of `beta`.
fn damage(path: &Path) {
    let database = Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(BASES).unwrap();
        let texts: Vec<(u64, Vec<u8>)> =
            table.iter().unwrap().map(|row| row.unwrap()).map(|(n, text)| (n.value(), text.value().into())).collect();
        let of = |word: &str| texts.iter().find(|(_, text)| String::from_utf8_lossy(text).contains(word)).unwrap();
        table.insert(of("alpha").0, of("gamma").1.as_slice()).unwrap();
        table.remove(of("beta").0).unwrap();
    }
    transaction.commit().unwrap();
}

#[tokio::test]
async fn a_store_with_damaged_bases_is_refused_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    with_words(&path, &["alpha", "beta", "gamma"]).await;
    damage(&path);
    let packed = rows(&path);
    for _ in 0..2 {
        let Err(refused) = Embedded::open(&path, Program::new(1)) else { panic!("it was opened") };
        assert!(matches!(&refused, OpenError::DamagedBases { damage, .. } if damage.objects() == 4), "{refused}");
        let told = "2 shared texts, without which 4 objects cannot be read (4 of things): restore a backup";
        assert!(refused.to_string().contains(told), "{refused}");
    }
    assert_eq!(rows(&path), packed);
}

#[tokio::test]
async fn who_goes_on_without_damaged_bases_has_their_objects_kept_aside() {
    let dir = tempfile::tempdir().unwrap();
    let (path, program) = (dir.path().join("store"), Program::new(1));
    with_words(&path, &["alpha", "beta", "gamma"]).await;
    damage(&path);
    let packed = rows(&path);
    let store = Embedded::open_damaged(&path, program.clone(), DamagedBases::Quarantine).unwrap();
    assert_eq!((store.snapshot().count("things"), store.stats().quarantined), (2, 4));
    assert_eq!(value(&store.snapshot().get("things", "gamma0").unwrap().json()), long("gamma"));
    let left = objects(&store);
    drop(store);
    for (key, row) in packed.iter().filter(|(key, _)| !key.contains("gamma")) {
        assert_eq!(aside(&path, key).as_ref(), Some(row), "{key}");
    }
    // Once is enough.
    let store = program.open(&path);
    assert_eq!((objects(&store), store.stats().quarantined), (left, 4));
}

#[tokio::test]
async fn a_later_write_to_an_object_makes_up_for_its_damaged_base() {
    let dir = tempfile::tempdir().unwrap();
    let (path, program) = (dir.path().join("store"), Program::new(1));
    with_words(&path, &["alpha", "beta", "gamma"]).await;
    let again = dir.path().join("again");
    let store = program.open(&path);
    for name in ["alpha0", "alpha1", "beta0", "beta1"] {
        store.write_one(put(name, Expect::Present, "new")).await.unwrap();
    }
    // As after a crash: the log alone has the writes.
    for suffix in ["", ".log0", ".log1"] {
        let of = |path: &Path| format!("{}{suffix}", path.display());
        std::fs::copy(of(&path), of(&again)).unwrap();
    }
    damage(&again);
    assert_eq!(objects(&program.open(&again)), objects(&store));
}
