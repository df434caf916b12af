//! Who acts as somebody else: users, groups, uids, extra values and accounts.

use serde_json::json;

use super::{Acts, ask};
use crate::exchange::Request;

pub fn acts() -> Acts {
    let whole: [&[(&str, &str)]; 26] = [
        &[("Impersonate-User", "jane")],
        &[("Impersonate-User", "joe")],
        &[("Impersonate-User", "")],
        &[("Impersonate-User", "jane"), ("Impersonate-Group", "devs")],
        &[("Impersonate-User", "jane"), ("Impersonate-Group", "system:masters")],
        &[("Impersonate-User", "jane"), ("Impersonate-Group", "devs"), ("Impersonate-Group", "admins")],
        &[("Impersonate-User", "jane"), ("Impersonate-Group", "")],
        &[("Impersonate-User", "jane"), ("Impersonate-Uid", "7")],
        &[("Impersonate-User", "jane"), ("Impersonate-Uid", "8")],
        &[("Impersonate-User", "jane"), ("Impersonate-Extra-Scopes", "view")],
        &[("Impersonate-User", "jane"), ("Impersonate-Extra-scopes", "edit")],
        &[("Impersonate-User", "jane"), ("Impersonate-Extra-acme.com%2Fproject", "x")],
        &[("Impersonate-User", "jane"), ("Impersonate-Extra-Other", "view")],
        &[("Impersonate-Group", "devs")],
        &[("Impersonate-Uid", "7")],
        &[("Impersonate-Extra-Scopes", "view")],
        &[("Impersonate-Group", "devs"), ("Impersonate-Uid", "7"), ("Impersonate-Extra-Scopes", "view")],
        &[("Impersonate-User", "system:serviceaccount:team-a:robot")],
        &[("Impersonate-User", "system:serviceaccount:team-b:robot")],
        &[("Impersonate-User", "system:serviceaccount:team-a:robot"), ("Impersonate-Group", "devs")],
        &[("Impersonate-User", "system:serviceaccount:team-a")],
        &[("Impersonate-User", "system:serviceaccount:TEAM:robot")],
        &[("Impersonate-User", "system:anonymous")],
        &[("Impersonate-User", "system:node:n1"), ("Impersonate-Group", "system:nodes")],
        &[("Impersonate-User", "jane"), ("Impersonate-Group", "system:authenticated")],
        &[("Impersonate-User", "jane"), ("Impersonate-Group", "system:unauthenticated")],
    ];
    let mut acts = Acts::new();
    for user in ["joe", "impersonator", "account-impersonator", "all-resources", "all-within"] {
        for headers in whole {
            let with =
                |request: Request| headers.iter().fold(request, |request, (name, value)| request.header(name, value));
            acts.push(ask(user, with(Request::get("/api/v1/namespaces/team-a/pods"))));
            let who = Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({}));
            acts.push(ask(user, with(who)));
        }
    }
    acts
}
