//! Which local images this agent has brought to the runtime, by pulls for its pods. Only those are removed: others are
//! the user's, who may have built them here, and could not be had again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::runtime::LocalImage;

/// The record, which is kept on disk. Cloning shares it.
#[derive(Clone, Debug)]
pub struct PulledImages(watch::Sender<KeptPulls>);

/// A moment of the record: how many pulls had been noted.
#[derive(Clone, Copy, Debug)]
pub struct Noted(u64);

/// The form on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPulls {
    /// By the runtime's id: the tags that came with pulls.
    images: BTreeMap<String, BTreeSet<String>>,
    /// When each image was noted last, since the agent has started.
    #[serde(skip)]
    noted: BTreeMap<String, u64>,
    #[serde(skip)]
    pulls: u64,
}

impl KeptPulls {
    /// Raise it with every change of the JSON form.
    pub const VERSION: u32 = 1;
}

impl PulledImages {
    /// Goes on from what an earlier agent kept.
    pub fn new(kept: Option<KeptPulls>) -> Self {
        Self(watch::Sender::new(kept.unwrap_or_default()))
    }

    /// Every state from now on.
    pub fn snapshots(&self) -> watch::Receiver<KeptPulls> {
        self.0.subscribe()
    }

    /// A pull has brought the image `id`, or found it here: `before` and `after` it these images were local.
    pub fn note(&self, id: &str, before: &[LocalImage], after: &[LocalImage]) {
        let tags = |list: &[LocalImage]| list.iter().find(|image| image.id == id).map(|image| image.tags.clone());
        let (before, Some(after)) = (tags(before), tags(after)) else { return };
        self.0.send_if_modified(|kept| {
            kept.pulls = kept.pulls.saturating_add(1);
            kept.noted.insert(id.to_owned(), kept.pulls);
            if before.is_some() && !kept.images.contains_key(id) {
                // Somebody else had it here already.
                return false;
            }
            let ours = kept.images.entry(id.to_owned()).or_default();
            let known = ours.len();
            ours.extend(after.difference(&before.clone().unwrap_or_default()).cloned());
            before.is_none() || ours.len() != known
        });
    }

    /// To be asked for before the images are listed, for [`Self::retain`].
    pub fn now(&self) -> Noted {
        Noted(self.0.borrow().pulls)
    }

    /// Forgets what is not in the list any more: what comes back by another way is another's. A pull that was noted
    /// since the list was asked for, at `asked`, may have brought what the list does not have.
    pub fn retain(&self, local: &[LocalImage], asked: Noted) {
        let local: BTreeSet<&str> = local.iter().map(|image| image.id.as_str()).collect();
        self.0.send_if_modified(|kept| {
            let known = kept.images.len();
            let noted = &kept.noted;
            let is_later = |id: &String| noted.get(id).is_some_and(|pull| *pull > asked.0);
            kept.images.retain(|id, _| local.contains(id.as_str()) || is_later(id));
            kept.noted.retain(|id, _| kept.images.contains_key(id));
            kept.images.len() != known
        });
    }

    /// Whether a pull has brought `image`, and nobody else has given it a name since.
    pub fn contains(&self, image: &LocalImage) -> bool {
        self.0.borrow().images.get(&image.id).is_some_and(|tags| image.tags.is_subset(tags))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, tags: &[&str]) -> LocalImage {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        LocalImage { id: id.into(), tags, size_bytes: 1, is_used: false }
    }

    #[test]
    fn an_image_that_a_pull_brought_is_ours_until_another_names_it_or_it_goes() {
        let pulled = PulledImages::new(None);
        let app = image("1", &["app:1"]);
        pulled.note("1", &[], std::slice::from_ref(&app));
        assert!(pulled.contains(&app));
        assert!(pulled.contains(&image("1", &[])), "its tag is another image's now");
        assert!(!pulled.contains(&image("1", &["app:1", "backup:1"])), "the user keeps it under another name");
        let kept = pulled.snapshots().borrow().clone();
        let text = serde_json::to_string(&kept).unwrap();
        assert!(PulledImages::new(Some(serde_json::from_str(&text).unwrap())).contains(&app));
        pulled.retain(&[image("2", &["other:1"])], pulled.now());
        assert!(!pulled.contains(&app));
    }

    #[test]
    fn a_pull_that_ends_while_the_images_are_listed_is_not_forgotten() {
        let pulled = PulledImages::new(None);
        let (old, new) = (image("1", &["old:1"]), image("2", &["new:1"]));
        pulled.note("1", &[], std::slice::from_ref(&old));
        let asked = pulled.now();
        // The list was made before the pull ended, and is read after.
        pulled.note("2", &[], &[old.clone(), new.clone()]);
        pulled.retain(&[], asked);
        assert!(pulled.contains(&new) && !pulled.contains(&old));
        pulled.retain(&[], pulled.now());
        assert!(!pulled.contains(&new));
    }

    #[test]
    fn an_image_that_was_here_before_the_pull_is_the_users() {
        let pulled = PulledImages::new(None);
        let built = image("1", &["built:1"]);
        pulled.note("1", std::slice::from_ref(&built), &[image("1", &["built:1", "registry/built:1"])]);
        assert!(!pulled.contains(&built) && !pulled.contains(&image("1", &["registry/built:1"])));
    }

    #[test]
    fn a_second_tag_that_a_pull_brings_is_ours_and_one_that_was_there_is_not() {
        let pulled = PulledImages::new(None);
        pulled.note("1", &[], &[image("1", &["app:1"])]);
        let named = image("1", &["app:1", "backup:1"]);
        pulled.note("1", std::slice::from_ref(&named), &[image("1", &["app:1", "app:latest", "backup:1"])]);
        assert!(pulled.contains(&image("1", &["app:1", "app:latest"])) && !pulled.contains(&named));
    }
}
