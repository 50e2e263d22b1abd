//go:build !nextversion

package nextversion

// Enabled reports whether this is the build of the next version.
const Enabled = false

// Step is what the next version adds to the numbers of versions.
const Step = 0

// Part is what the next version adds to a binary value: bytes with their length before them.
const Part = ""

// Member is what it adds to a JSON object: members with a comma before them.
const Member = ""

// Script is what it adds to what runs in Redis.
const Script = ""

// Object returns a JSON object as the next version writes it.
func Object(b []byte) []byte { return b }
