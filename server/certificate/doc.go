// Package certificate holds the TLS certificates of a node's listeners: it reads them from files, says at the start what is
// wrong with them and what to do, and takes up new ones while connections stay as they are.
//
// # Place in the flow
//
// The gateway opens a [Store] with the files of its configuration and gives each listener a [Store.Config]. Store.Run looks at the
// files every few seconds, so that whatever renews them need tell nobody; Reload does it at once, for SIGHUP.
//
// # Invariants
//
//   - A new certificate holds from the next handshake on. Connections that stand keep the one that they began with.
//   - A file that is broken, expired, or half written never takes a good certificate's place: the old one stays, the log and
//     [Status] say so, and the file is tried again.
//   - Pairs are independent: one that is broken keeps no other from being renewed.
//   - Files are compared by what they hold, and not by their time, since links that change their target (as of secrets mounted
//     in containers) and copies keep times.
//   - Nothing of a private key reaches an error or the log.
package certificate
