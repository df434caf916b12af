//! node proxy
