//! The layout of every map key and value, as golden text: a field that moves needs a new [`LAYOUT_VERSION`], since maps
//! outlive the agent.

use core::{fmt::Write, mem::offset_of};

use super::*;

/// `TYPE size: field@offset …`, one line per type.
macro_rules! layouts {
    ($($kind:ident { $($field:ident),* })*) => {{
        let mut text = String::new();
        $(
            write!(text, "{} {}:", stringify!($kind), size_of::<$kind>()).unwrap();
            // Exhaustive: a new field does not compile until it stands here.
            let _ = |value: $kind| { let $kind { $($field: _),* } = value; };
            $(write!(text, " {}@{}", stringify!($field), offset_of!($kind, $field)).unwrap();)*
            text.push('\n');
        )*
        text
    }};
}

const VERSION_2: &str = "\
ServiceKey 8: address_be@0 port_be@4 protocol@6 scope@7
ServiceHead 24: set@0 generation@4 count@8 affinity_timeout_s@12 flags@16 _pad@20
SlotKey 12: set@0 generation@4 slot@8
MemberKey 8: set@0 backend@4
Backend 8: address_be@0 port_be@4 protocol@6 flags@7
AffinityKey 16: client@0 set@8 _pad@12
Affinity 16: last_used_ns@0 backend@8 _pad@12
UnknownClient 16: netns_cookie@0 process@8 _pad@12
CounterKey 8: set@0 backend@4
Counters 16: picks@0 affine@8
FlowKey 16: source_be@0 destination_be@4 source_port_be@8 destination_port_be@10 protocol@12 _pad@13
Rewrite 24: source_be@0 destination_be@4 source_port_be@8 destination_port_be@10 set@12 backend@16 flags@20
FragmentKey 12: source_be@0 destination_be@4 identification_be@8 protocol@10 _pad@11
FragmentPorts 4: source_port_be@0 destination_port_be@2
Settings 24: host_netns_cookie@0 service_range_be@8 service_mask_be@12 node_address_be@16 refusing_address_be@20
Translation 24: service_address_be@0 backend_address_be@4 service_port_be@8 backend_port_be@10 set@12 generation@16 backend@20
Translations 104: entries@0 next@96 _pad@100
";

#[test]
fn every_field_stands_where_the_layout_version_says() {
    let layouts = layouts! {
        ServiceKey { address_be, port_be, protocol, scope }
        ServiceHead { set, generation, count, affinity_timeout_s, flags, _pad }
        SlotKey { set, generation, slot }
        MemberKey { set, backend }
        Backend { address_be, port_be, protocol, flags }
        AffinityKey { client, set, _pad }
        Affinity { last_used_ns, backend, _pad }
        UnknownClient { netns_cookie, process, _pad }
        CounterKey { set, backend }
        Counters { picks, affine }
        FlowKey { source_be, destination_be, source_port_be, destination_port_be, protocol, _pad }
        Rewrite { source_be, destination_be, source_port_be, destination_port_be, set, backend, flags }
        FragmentKey { source_be, destination_be, identification_be, protocol, _pad }
        FragmentPorts { source_port_be, destination_port_be }
        Settings { host_netns_cookie, service_range_be, service_mask_be, node_address_be, refusing_address_be }
        Translation { service_address_be, backend_address_be, service_port_be, backend_port_be, set, generation, backend }
        Translations { entries, next, _pad }
    };
    assert_eq!((LAYOUT_VERSION, layouts.as_str()), (2, VERSION_2));
}
