//! The functions that expressions may call, with the types that they take and answer.
//!
//! They are a table in a notation of their own, which `notation` reads: `name(types) result`.

use std::{collections::HashMap, sync::LazyLock};

use super::typing::Type;

mod notation;

/// One way to call a function.
#[derive(Debug)]
pub struct Signature {
    /// Whether it is called on its first argument.
    pub is_member: bool,
    /// The first of them is the value it is called on, if it is a member.
    pub arguments: Vec<Type>,
    pub result: Type,
}

/// `A` and `B`; the checker puts fresh variables in their place.
pub const PARAMETERS: usize = 2;

/// The signatures of a function.
pub fn of(name: &str) -> Option<&'static [Signature]> {
    static ALL: LazyLock<HashMap<&'static str, Vec<Signature>>> = LazyLock::new(|| {
        let mut all: HashMap<&str, Vec<Signature>> = HashMap::new();
        for line in TABLE.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, signature) = notation::read(line);
            all.entry(name).or_default().push(signature);
        }
        all
    });
    ALL.get(name).map(Vec::as_slice)
}

const TABLE: &str = "
    _?_:_(bool, A, A) A
    _&&_(bool, bool) bool
    _||_(bool, bool) bool
    !_(bool) bool
    @not_strictly_false(bool) bool
    _==_(A, A) bool
    _!=_(A, A) bool
    _+_(int, int) int
    _+_(uint, uint) uint
    _+_(double, double) double
    _+_(string, string) string
    _+_(bytes, bytes) bytes
    _+_(list(A), list(A)) list(A)
    _+_(timestamp, duration) timestamp
    _+_(duration, timestamp) timestamp
    _+_(duration, duration) duration
    _-_(int, int) int
    _-_(uint, uint) uint
    _-_(double, double) double
    _-_(timestamp, timestamp) duration
    _-_(timestamp, duration) timestamp
    _-_(duration, duration) duration
    _*_(int, int) int
    _*_(uint, uint) uint
    _*_(double, double) double
    _/_(int, int) int
    _/_(uint, uint) uint
    _/_(double, double) double
    _%_(int, int) int
    _%_(uint, uint) uint
    -_(int) int
    -_(double) double
    _[_](list(A), int) A
    _[_](map(A, B), A) B
    _[_](optional(list(A)), int) optional(A)
    _[_](optional(map(A, B)), A) optional(B)
    _[?_](list(A), int) optional(A)
    _[?_](map(A, B), A) optional(B)
    _[?_](optional(list(A)), int) optional(A)
    _[?_](optional(map(A, B)), A) optional(B)
    @in(A, list(A)) bool
    @in(A, map(A, B)) bool
    size(string) int
    size(bytes) int
    size(list(A)) int
    size(map(A, B)) int
    string.size() int
    bytes.size() int
    list(A).size() int
    map(A, B).size() int
    type(A) type
    dyn(A) dyn
    int(int) int
    int(uint) int
    int(double) int
    int(string) int
    int(timestamp) int
    int(duration) int
    uint(uint) uint
    uint(int) uint
    uint(double) uint
    uint(string) uint
    double(double) double
    double(int) double
    double(uint) double
    double(string) double
    string(string) string
    string(bool) string
    string(int) string
    string(uint) string
    string(double) string
    string(bytes) string
    string(timestamp) string
    string(duration) string
    bytes(bytes) bytes
    bytes(string) bytes
    bool(bool) bool
    bool(string) bool
    timestamp(timestamp) timestamp
    timestamp(string) timestamp
    timestamp(int) timestamp
    duration(duration) duration
    duration(string) duration
    duration(int) duration
    string.contains(string) bool
    string.startsWith(string) bool
    string.endsWith(string) bool
    string.matches(string) bool
    matches(string, string) bool
    timestamp.getFullYear() int
    timestamp.getFullYear(string) int
    timestamp.getMonth() int
    timestamp.getMonth(string) int
    timestamp.getDayOfYear() int
    timestamp.getDayOfYear(string) int
    timestamp.getDayOfMonth() int
    timestamp.getDayOfMonth(string) int
    timestamp.getDate() int
    timestamp.getDate(string) int
    timestamp.getDayOfWeek() int
    timestamp.getDayOfWeek(string) int
    timestamp.getHours() int
    timestamp.getHours(string) int
    duration.getHours() int
    timestamp.getMinutes() int
    timestamp.getMinutes(string) int
    duration.getMinutes() int
    timestamp.getSeconds() int
    timestamp.getSeconds(string) int
    duration.getSeconds() int
    timestamp.getMilliseconds() int
    timestamp.getMilliseconds(string) int
    duration.getMilliseconds() int
    string.charAt(int) string
    string.indexOf(string) int
    string.indexOf(string, int) int
    string.lastIndexOf(string) int
    string.lastIndexOf(string, int) int
    string.lowerAscii() string
    string.upperAscii() string
    string.replace(string, string) string
    string.replace(string, string, int) string
    string.split(string) list(string)
    string.split(string, int) list(string)
    string.substring(int) string
    string.substring(int, int) string
    string.trim() string
    string.format(list(dyn)) string
    strings.quote(string) string
    list(string).join() string
    list(string).join(string) string
    string.find(string) string
    string.findAll(string) list(string)
    string.findAll(string, int) list(string)
    list(A).isSorted() bool
    list(int).sum() int
    list(uint).sum() uint
    list(double).sum() double
    list(duration).sum() duration
    list(A).min() A
    list(A).max() A
    list(A).indexOf(A) int
    list(A).lastIndexOf(A) int
    list(A).slice(int, int) list(A)
    list(A).sort() list(A)
    list(A).distinct() list(A)
    list(A).reverse() list(A)
    list(list(A)).flatten() list(A)
    list(dyn).flatten(int) list(dyn)
    list(A).first() optional(A)
    list(A).last() optional(A)
    lists.range(int) list(int)
    sets.contains(list(A), list(A)) bool
    sets.equivalent(list(A), list(A)) bool
    sets.intersects(list(A), list(A)) bool
    url(string) url
    isURL(string) bool
    url.getScheme() string
    url.getHost() string
    url.getHostname() string
    url.getPort() string
    url.getEscapedPath() string
    url.getQuery() map(string, list(string))
    quantity(string) quantity
    isQuantity(string) bool
    quantity.sign() int
    quantity.isInteger() bool
    quantity.asInteger() int
    quantity.asApproximateFloat() double
    quantity.isGreaterThan(quantity) bool
    quantity.isLessThan(quantity) bool
    quantity.compareTo(quantity) int
    quantity.add(quantity) quantity
    quantity.add(int) quantity
    quantity.sub(quantity) quantity
    quantity.sub(int) quantity
    ip(string) ip
    isIP(string) bool
    ip.isCanonical(string) bool
    ip.family() int
    ip.isUnspecified() bool
    ip.isLoopback() bool
    ip.isLinkLocalMulticast() bool
    ip.isLinkLocalUnicast() bool
    ip.isGlobalUnicast() bool
    string(ip) string
    cidr(string) cidr
    isCIDR(string) bool
    cidr.containsIP(string) bool
    cidr.containsIP(ip) bool
    cidr.containsCIDR(string) bool
    cidr.containsCIDR(cidr) bool
    cidr.ip() ip
    cidr.prefixLength() int
    cidr.masked() cidr
    string(cidr) string
    format.named(string) optional(format)
    format.dns1123Label() format
    format.dns1123Subdomain() format
    format.dns1035Label() format
    format.qualifiedName() format
    format.dns1123LabelPrefix() format
    format.dns1123SubdomainPrefix() format
    format.dns1035LabelPrefix() format
    format.labelValue() format
    format.uri() format
    format.uuid() format
    format.byte() format
    format.date() format
    format.datetime() format
    format.validate(string) optional(list(string))
    semver(string) semver
    semver(string, bool) semver
    isSemver(string) bool
    isSemver(string, bool) bool
    semver.major() int
    semver.minor() int
    semver.patch() int
    semver.isGreaterThan(semver) bool
    semver.isLessThan(semver) bool
    semver.compareTo(semver) int
    authorizer.path(string) pathcheck
    authorizer.group(string) groupcheck
    authorizer.serviceAccount(string, string) authorizer
    groupcheck.resource(string) resourcecheck
    resourcecheck.subresource(string) resourcecheck
    resourcecheck.namespace(string) resourcecheck
    resourcecheck.name(string) resourcecheck
    resourcecheck.fieldSelector(string) resourcecheck
    resourcecheck.labelSelector(string) resourcecheck
    pathcheck.check(string) decision
    resourcecheck.check(string) decision
    decision.allowed() bool
    decision.reason() string
    decision.errored() bool
    decision.error() string
    optional.of(A) optional(A)
    optional.ofNonZeroValue(A) optional(A)
    optional.none() optional(A)
    optional(A).hasValue() bool
    optional(A).value() A
    optional(A).or(optional(A)) optional(A)
    optional(A).orValue(A) A
    jsonpatch.escapeKey(string) string
";

/// The types that have an order: `<` and its like take two of one of them, or two numbers of any type.
pub const ORDERED: [Type; 9] = [
    Type::Bool,
    Type::Int,
    Type::Uint,
    Type::Double,
    Type::String,
    Type::Bytes,
    Type::Timestamp,
    Type::Duration,
    Type::Dyn,
];

/// The functions whose names have dots: what stands before the last is no value.
pub const QUALIFIED: &[&str] =
    &["strings", "lists", "sets", "optional", "format", "ip", "cel", "math", "base64", JSON_PATCH_PREFIX];

/// Prefix of the functions that mutations alone may call.
pub const JSON_PATCH_PREFIX: &str = "jsonpatch";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_can_be_read() {
        let plus = of("_+_").unwrap();
        assert_eq!(plus.len(), 9);
        let size = of("size").unwrap();
        assert_eq!(size.iter().filter(|s| s.is_member).count(), 4);
        assert_eq!(size.last().unwrap().arguments.len(), 1);
        assert_eq!(of("ip.isCanonical").unwrap()[0].arguments.len(), 1);
        assert_eq!(of("family").unwrap()[0].result.to_string(), "int");
        assert_eq!(of("flatten").unwrap()[0].arguments[0].to_string(), "list(list(dyn))");
        assert!(!of("format.named").unwrap()[0].is_member && of("validate").unwrap()[0].is_member);
        assert!(of("nothing").is_none());
    }
}
