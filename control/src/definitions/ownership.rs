//! Conversions for an account of owners: what a webhook makes of one object in the versions that its managers used.
//!
//! An account is synchronous. It is run again each time that the webhook has converted one more state of the object,
//! and asks for the same conversions in the same order each time: it is given what it had by place, so a run serialises
//! only the state that is new. How many states there are, and how large, is bounded, for clients name the managers.

use std::{collections::HashMap, sync::Arc};

use serde_json::{Value, json};

use super::{
    conversion,
    converted::{Digest, digest},
};
use crate::{custom::WebhookConversion, deadline, kinds::Kind, request::MAX_BODY, status::Status};

/// How many states of an object are converted for one account.
const MAX_CONVERSIONS: usize = 256;
/// Most bytes of one of them: as much as a client can send.
const MAX_BYTES: usize = MAX_BODY;
/// Most bytes of all of them: a few versions of the largest object, before and after the write.
const MAX_TOTAL_BYTES: usize = 16 << 20;

/// The conversions of one account.
#[derive(Default)]
pub struct Conversions {
    /// What was converted, each state once per version.
    made: Vec<Value>,
    /// The bytes of all that was made.
    bytes: usize,
    /// Where in `made` is what a state has become.
    places: HashMap<Digest, usize>,
    /// What runs ask for, in order: the wanted version, and the place in `made`.
    asked: Vec<(String, usize)>,
    /// How much of `asked` the present run has passed.
    passed: usize,
    /// What the present run lacks. Only the first: what follows is made of nothing.
    lacked: Option<Lacked>,
    /// How many states were serialised to find what they have become.
    #[cfg(test)]
    serialised: usize,
}

struct Lacked {
    digest: Digest,
    object: Value,
    version: String,
}

impl Conversions {
    /// Makes `object` one of `version`, if it was converted; otherwise notes that it is lacked, and makes it empty.
    pub fn convert_now(&mut self, object: &mut Value, version: &str) {
        match self.place(object, version) {
            Some(made) => {
                *object = made;
                self.passed += 1;
            }
            None => {
                let empty = json!({"apiVersion": version, "kind": object["kind"], "metadata": object["metadata"]});
                *object = empty;
            }
        }
    }

    fn place(&mut self, object: &Value, version: &str) -> Option<Value> {
        if self.lacked.is_some() {
            return None;
        }
        match self.asked.get(self.passed) {
            Some((asked, place)) if asked == version => return self.made.get(*place).cloned(),
            // Not what the last run asked for here, which ought not to be: looked up anew from here on.
            Some(_) => self.asked.truncate(self.passed),
            None => {}
        }
        #[cfg(test)]
        {
            self.serialised += 1;
        }
        let (digest, _) = digest(object, version);
        let Some(place) = self.places.get(&digest) else {
            self.lacked = Some(Lacked { digest, object: object.clone(), version: version.to_owned() });
            return None;
        };
        self.asked.push((version.to_owned(), *place));
        self.made.get(*place).cloned()
    }

    /// Keeps what a state has become, unless that is too much.
    fn keep(&mut self, digest: Digest, made: Value) -> Result<(), Status> {
        let bytes = made.to_string().len();
        self.bytes = self.bytes.saturating_add(bytes);
        if bytes > MAX_BYTES || self.bytes > MAX_TOTAL_BYTES {
            let (what, of, most) = match bytes > MAX_BYTES {
                true => ("an object", bytes, MAX_BYTES),
                false => ("the objects", self.bytes, MAX_TOTAL_BYTES),
            };
            return Err(Status::internal(format!(
                "cannot tell who owns the fields of the object: the conversion webhook made {what} of {of} bytes, at \
                 most {most} are taken"
            )));
        }
        self.places.insert(digest, self.made.len());
        self.made.push(made);
        Ok(())
    }
}

/// Runs `account`, which tells who owns the fields of an object of `kind` and looks at states of it in the versions
/// that its managers used. Where a webhook must convert them, `account` is run again with each that it has converted,
/// so it must come to the same each time. Ends with the deadline of the request.
pub async fn account<T>(kind: &Kind, mut account: impl FnMut() -> T) -> Result<T, Status> {
    match kind.custom.as_ref().and_then(|custom| custom.webhook.as_ref()) {
        Some(webhook) => accounted(webhook, account).await.map(|(result, _)| result),
        None => Ok(account()),
    }
}

async fn accounted<T>(
    webhook: &Arc<dyn WebhookConversion>,
    mut account: impl FnMut() -> T,
) -> Result<(T, Box<Conversions>), Status> {
    let mut conversions = Box::<Conversions>::default();
    loop {
        deadline::must_not_be_over()?;
        conversions.passed = 0;
        let result;
        (result, conversions) = conversion::run_account(conversions, &mut account);
        let Some(Lacked { digest, object, version }) = conversions.lacked.take() else {
            return Ok((result, conversions));
        };
        if conversions.made.len() >= MAX_CONVERSIONS {
            return Err(Status::internal("the managers of the object used too many versions of it"));
        }
        let made = conversion::one(webhook, object, &version).await?;
        conversions.keep(digest, made)?;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use async_trait::async_trait;

    use super::*;

    /// Adds this many bytes to each object.
    #[derive(Debug, Default)]
    struct Padding {
        bytes: usize,
        calls: AtomicUsize,
    }

    #[async_trait]
    impl WebhookConversion for Padding {
        fn convert_now(&self, object: &mut Value, version: &str) {
            assert!(conversion::convert_in_run(object, version));
        }

        async fn convert(&self, objects: Vec<Value>, version: &str) -> Result<Vec<Value>, Status> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            let convert = |mut object: Value| {
                object["apiVersion"] = version.into();
                object["padding"] = "x".repeat(self.bytes).into();
                object
            };
            Ok(objects.into_iter().map(convert).collect())
        }

        async fn convert_shared(&self, objects: Vec<Value>, version: &str) -> Result<Vec<Value>, Status> {
            self.convert(objects, version).await
        }
    }

    /// Looks at an object in so many versions, each made of the one before, twice. Answers with the last.
    async fn walk(webhook: &Arc<Padding>, versions: usize) -> Result<(Value, Box<Conversions>), Status> {
        let dynamic: Arc<dyn WebhookConversion> = webhook.clone();
        let account = || {
            let mut last = Value::Null;
            for _ in 0..2 {
                last = json!({"apiVersion": "g/v", "kind": "K", "metadata": {"name": "a"}});
                (0..versions).for_each(|version| webhook.convert_now(&mut last, &format!("g/v{version}")));
            }
            last
        };
        accounted(&dynamic, account).await
    }

    #[tokio::test]
    async fn each_state_is_converted_once_and_serialised_no_oftener_than_it_is_new() {
        let webhook = Arc::new(Padding::default());
        let (last, conversions) = walk(&webhook, 100).await.unwrap();
        assert_eq!(last["apiVersion"], "g/v99");
        assert_eq!(webhook.calls.load(Ordering::SeqCst), 100);
        // Once when it is lacked, once when it is there, and once at its second place.
        assert_eq!(conversions.serialised, 300);
    }

    #[tokio::test]
    async fn too_many_too_large_and_too_much_are_refused() {
        let refusal = async |bytes: usize, versions: usize| {
            let webhook = Arc::new(Padding { bytes, ..Padding::default() });
            (walk(&webhook, versions).await.err().unwrap().message, webhook.calls.load(Ordering::SeqCst))
        };
        let (message, calls) = refusal(0, 300).await;
        assert!(message.ends_with("used too many versions of it") && calls == MAX_CONVERSIONS, "{message} {calls}");
        let (message, calls) = refusal(MAX_BYTES, 300).await;
        assert!(message.contains("made an object of") && calls == 1, "{message}");
        let (message, calls) = refusal(MAX_BYTES / 2, 300).await;
        assert!(message.contains("made the objects of") && calls == 11, "{message} {calls}");
    }

    #[tokio::test]
    async fn a_request_that_is_over_asks_no_further() {
        let webhook = Arc::new(Padding::default());
        let refused = deadline::within(Duration::ZERO, walk(&webhook, 3)).await.err().unwrap();
        assert_eq!((refused.code, webhook.calls.load(Ordering::SeqCst)), (504, 0));
    }
}
