// Package jwks finds the keys that products publish at an address of theirs, as a JSON Web Key Set (RFC 7517), so that they can
// rotate them without calling the gateway.
//
// # Place in the flow
//
// The verifier of device tokens asks a [Cache] for a key that the catalog does not have, for a product that has an address. It is
// asked at every connect, so it answers from memory; what it has to fetch it fetches beside the connects, and few of them wait,
// for a short while.
//
// # Invariants
//
//   - A product's keys are found for that product alone. Whatever a set says, its keys are public ones of an algorithm that is
//     taken, and the key alone says which: no shared secrets, no other curves, nothing that is for encryption.
//   - A key that is not in the set any more is refused once the set's time is over (Config.Most at the latest), even if nobody
//     connected meanwhile. Only while the address cannot be read does the last set go on, until Config.Keep is over.
//   - A token whose key is published is never refused: where the key is not known and the address may not be asked again yet, the
//     answer is that it cannot be judged now.
//   - An address is asked by one request at a time, at most once in Config.Every whatever tokens come, and each request is bounded
//     in time and bytes. Of the connects that wait, the number is bounded for each product and in all; the others are answered
//     at once.
package jwks
