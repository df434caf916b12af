//! What RBAC costs a request: reads by users with few and many rights, beside those of an administrator, whom neither
//! roles nor seats are asked about, and those of the same users where a second fairlead allows every request.

use std::time::Duration;

use kube::Client;
use serde_json::json;

use crate::{
    access_load::{Connection, Dialer, Question, Rate, config_of, rate},
    api_load, api_writes,
    contestant::Contestant,
    kit::Result,
    report::percentile,
};

/// All is in one namespace: a server that looks through a namespace's bindings meets them all.
pub const NAMESPACE: &str = "access";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/access/roles";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/access/rolebindings";
const JSON: &str = "application/json";
/// The user whose right is in the last binding, and the one whom all bindings name.
const LAST: &str = "last";
const MANY: &str = "many";
const WRITERS: usize = 32;
const CONNECTIONS: usize = 16;
const SLICE: Duration = Duration::from_secs(1);

/// How many roles and bindings there are.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub roles: usize,
    pub bindings: usize,
    pub rounds: usize,
}

/// What one server showed, in the order `LAST`, `MANY`, administrator.
pub struct RbacRates {
    /// With no other roles and bindings than those two that the first user needs.
    pub without: [Rate; 2],
    pub with: [Rate; 3],
    /// Of the administrator's rate, in the same round.
    pub share: [f64; 2],
    /// The administrator's processor time as a share of theirs.
    pub processor_share: [f64; 2],
    /// Of the rate of the same user at the server that allows all, in the same round.
    pub share_of_allowed: Option<[f64; 2]>,
    /// The processor time at that server as a share of that at this one.
    pub processor_share_of_allowed: Option<[f64; 2]>,
}

/// The object that all read.
pub async fn prepare(contestant: &Contestant) -> Result {
    let client = Client::try_from(contestant.server.config().clone())?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    api_writes::write(&client, "POST", "/api/v1/namespaces", JSON, &namespace).await?;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "read"}, "data": {"key": "value"}});
    api_writes::write(&client, "POST", &format!("/api/v1/namespaces/{NAMESPACE}/configmaps"), JSON, &map).await?;
    Ok(())
}

/// The question that all ask.
pub fn read() -> Question {
    Question::get(format!("/api/v1/namespaces/{NAMESPACE}/configmaps/read"))
}

/// Gives `subject` the right to read that object.
pub async fn let_read(client: &Client, role: &str, binding: &str, subjects: serde_json::Value) -> Result {
    let role_object = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": role},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]});
    api_writes::write(client, "POST", ROLES, JSON, &role_object).await?;
    bind(client, role, binding, subjects).await
}

async fn bind(client: &Client, role: &str, binding: &str, subjects: serde_json::Value) -> Result {
    let object = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": binding}, "subjects": subjects,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role}});
    api_writes::write(client, "POST", BINDINGS, JSON, &object).await.map(drop)
}

fn user(name: &str) -> serde_json::Value {
    json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name})
}

/// Connections of the three users.
struct Users([Vec<Connection>; 3]);

impl Users {
    async fn connect(contestant: &Contestant) -> Result<Self> {
        let mut users = Vec::new();
        for (name, group) in [(LAST, None), (MANY, None), ("root", Some("system:masters"))] {
            let config = config_of(contestant.server.config(), &contestant.authority, name, group)?;
            users.push(Dialer::new(&config)?.connections(CONNECTIONS).await?);
        }
        Ok(Self(users.try_into().map_err(|_| "not three users")?))
    }
}

/// Measures all contestants, one after the other in each round. The one that allows all has the same objects.
pub async fn measure(contestants: &[&Contestant], sizes: Sizes) -> Result<Vec<RbacRates>> {
    let mut connected = Vec::new();
    for contestant in contestants {
        let client = Client::try_from(contestant.server.config().clone())?;
        // The last by name, too.
        let subjects = json!([user(LAST), user(MANY)]);
        let_read(&client, "role-last", "zz-last", subjects).await?;
        connected.push((*contestant, Users::connect(contestant).await?));
    }
    let without = rounds(&mut connected, sizes.rounds).await?;
    for contestant in contestants {
        fill(contestant, sizes).await?;
    }
    let with = rounds(&mut connected, sizes.rounds).await?;
    let allowing = contestants.iter().position(|contestant| contestant.server.allows_all());
    let allowed = allowing.and_then(|index| with.get(index));
    let rates = without.iter().zip(&with).map(|(without, with)| {
        let of_allowed = |figure: fn(&Rate, &Rate) -> f64| {
            let rounds = allowed.filter(|allowed| !std::ptr::eq(*allowed, with))?;
            Some([0, 1].map(|of| median(with.iter().zip(rounds).map(|(own, allowed)| figure(&own[of], &allowed[of])))))
        };
        let share = |of: usize| median(with.iter().map(|round| round[of].per_second / round[2].per_second));
        let processor =
            |of: usize| median(with.iter().map(|round| round[2].processor_micros / round[of].processor_micros));
        RbacRates {
            without: [typical(without, 0), typical(without, 2)],
            with: [0, 1, 2].map(|of| typical(with, of)),
            share: [share(0), share(1)],
            processor_share: [processor(0), processor(1)],
            share_of_allowed: of_allowed(|own, allowed| own.per_second / allowed.per_second),
            processor_share_of_allowed: of_allowed(|own, allowed| allowed.processor_micros / own.processor_micros),
        }
    });
    Ok(rates.collect())
}

/// Roles that do not let read, bound to users of their own and to `MANY`.
async fn fill(contestant: &Contestant, sizes: Sizes) -> Result {
    let clients = api_load::clients(contestant.server.config(), WRITERS)?;
    api_load::each(&clients, sizes.roles - 1, |client, index| async move {
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": format!("role-{index:04}")}, "rules": [
            {"apiGroups": [""], "resources": ["pods", "pods/log", "services"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": ["apps"], "resources": ["deployments", "statefulsets"], "verbs": ["get", "list", "patch"]},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": [format!("s-{index}")]},
        ]});
        api_writes::write(&client, "POST", ROLES, JSON, &role).await.map(drop)
    })
    .await?;
    api_load::each(&clients, sizes.bindings - 1, |client, index| async move {
        let subjects = json!([user(&format!("user-{}", index % 500)), user(MANY)]);
        bind(&client, &format!("role-{:04}", index % (sizes.roles - 1)), &format!("binding-{index:05}"), subjects).await
    })
    .await
}

type Round = [Rate; 3];

async fn rounds(connected: &mut [(&Contestant, Users)], rounds: usize) -> Result<Vec<Vec<Round>>> {
    let mut seen: Vec<Vec<Round>> = connected.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for ((contestant, users), seen) in connected.iter_mut().zip(&mut seen) {
            let nothing = Rate { per_second: f64::NAN, processor_micros: f64::NAN };
            let mut rates = [nothing; 3];
            // Who comes first takes turns.
            for turn in 0..3 {
                let of = (turn + round) % 3;
                rates[of] = rate(&contestant.server, &mut users.0[of], SLICE, |_| Some(read())).await?;
            }
            seen.push(rates);
        }
    }
    Ok(seen)
}

fn typical(rounds: &[Round], of: usize) -> Rate {
    Rate {
        per_second: median(rounds.iter().map(|round| round[of].per_second)),
        processor_micros: median(rounds.iter().map(|round| round[of].processor_micros)),
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    percentile(&mut values.collect::<Vec<_>>(), 0.5)
}
