//! The admin kubeconfig: one cluster, one user, everything embedded, so that the file alone is enough.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Authority, Issued};

/// The kubeconfig that lets `user` reach `server` (an `https://` URL).
pub fn admin_kubeconfig(server: &str, authority: &Authority, user: &Issued) -> String {
    let ca = STANDARD.encode(authority.certificate_pem());
    let certificate = STANDARD.encode(&user.certificate_pem);
    let key = STANDARD.encode(&user.key_pem);
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: fairlead
  cluster:
    server: {server}
    certificate-authority-data: {ca}
users:
- name: kubernetes-admin
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
contexts:
- name: fairlead
  context:
    cluster: fairlead
    user: kubernetes-admin
current-context: fairlead
"
    )
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::{super::*, *};

    #[test]
    fn clients_can_read_it() {
        let now = OffsetDateTime::now_utc();
        let (authority, _) = Authority::create(now).unwrap();
        let user = authority.issue(&CertificateSubject::default(), Usage::Client, LEAF_LIFETIME, now).unwrap();
        let text = admin_kubeconfig("https://127.0.0.1:6443", &authority, &user);
        let parsed = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        assert_eq!(parsed.current_context.as_deref(), Some("fairlead"));
        assert_eq!(parsed.clusters[0].cluster.as_ref().unwrap().server.as_deref(), Some("https://127.0.0.1:6443"));
    }
}
