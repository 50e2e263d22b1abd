package catalog

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strings"

	"carillon/server/push"
)

// Scope is something that an API key allows.
type Scope string

// The scopes. A key has those that it was made with, for good: a scope that comes later is in none of the keys that were there
// before, all but those of ScopeAll.
const (
	ScopeMessagesWrite Scope = "messages:write" // publish and recall
	ScopeMessagesRead  Scope = "messages:read"  // what became of a message
	ScopeUsersRead     Scope = "users:read"     // devices, online state, cursors, tags
	ScopeUsersWrite    Scope = "users:write"    // delete devices, change tags
	ScopeSessionsWrite Scope = "sessions:write" // kick sessions, revoke tokens
	ScopeTasksRead     Scope = "tasks:read"     // watch tasks, look at lists
	ScopeTasksWrite    Scope = "tasks:write"    // make, pause, stop and recall tasks, upload lists
	ScopeTasksApprove  Scope = "tasks:approve"  // approve tasks that others made
	ScopeAll           Scope = "*"              // everything, what comes later too
)

// Scopes returns all scopes there are.
func Scopes() []Scope {
	return []Scope{ScopeMessagesWrite, ScopeMessagesRead, ScopeUsersRead, ScopeUsersWrite, ScopeSessionsWrite,
		ScopeTasksRead, ScopeTasksWrite, ScopeTasksApprove, ScopeAll}
}

// APIKeyID names an API key among those of all products: 16 of a-z and 2-7.
type APIKeyID string

// APIKey is what the catalog knows of an API key. The key itself is shown once, when it is made.
type APIKey struct {
	ID      APIKeyID
	Product push.ProductID
	Name    string  // for people; may be empty
	Scopes  []Scope // sorted, each once, at least one
	Hash    KeyHash
	Created push.MilliTime
	Expires push.MilliTime // 0: never
	Revoked push.MilliTime // 0 if it was not
}

// KeyHash is the SHA-256 of an API key's 32 secret bytes. They are random, so that no slower hash is needed.
type KeyHash [sha256.Size]byte

// APIKeyText is a whole API key as its owner keeps it: "cak_", the id, "_", then 43 characters of base64url that hold 256
// random bits. It is a secret: fmt shows no more of it than its id.
type APIKeyText string

const (
	keyPrefix    = "cak_"
	keyIDBytes   = 10
	keyIDChars   = 16
	keySecret    = 32
	secretChars  = 43
	keyTextChars = len(keyPrefix) + keyIDChars + 1 + secretChars
)

var (
	idEncoding     = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
	secretEncoding = base64.RawURLEncoding.Strict() // one text for one secret
)

// NewAPIKey makes an API key out of 42 random bytes. Product, Name, Scopes and Expires are taken from k. The text is the
// only place where the secret stands.
func NewAPIKey(random io.Reader, k APIKey) (APIKey, APIKeyText, error) {
	var b [keyIDBytes + keySecret]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return APIKey{}, "", fmt.Errorf("catalog: make an API key: %w", err)
	}
	k.ID = APIKeyID(idEncoding.EncodeToString(b[:keyIDBytes]))
	k.Hash = sha256.Sum256(b[keyIDBytes:])
	text := keyPrefix + string(k.ID) + "_" + secretEncoding.EncodeToString(b[keyIDBytes:])
	return k, APIKeyText(text), nil
}

// Format shows the id and hides the secret, whatever the verb.
func (t APIKeyText) Format(f fmt.State, _ rune) {
	if id, _, ok := t.Parse(); ok {
		fmt.Fprint(f, keyPrefix, string(id), "_", hidden)
		return
	}
	fmt.Fprint(f, hidden)
}

// Parse takes a text apart; ok is false if it is no API key. It looks at the form alone.
func (t APIKeyText) Parse() (id APIKeyID, h KeyHash, ok bool) {
	if len(t) != keyTextChars || !strings.HasPrefix(string(t), keyPrefix) {
		return "", h, false
	}
	id = APIKeyID(t[len(keyPrefix) : len(keyPrefix)+keyIDChars])
	if t[len(keyPrefix)+keyIDChars] != '_' || id.Check() != nil {
		return "", h, false
	}
	var in [secretChars]byte // an array, and no slice made of the text: this runs with every request
	copy(in[:], t[keyTextChars-secretChars:])
	var secret [keySecret + 1]byte // one more than is needed: the decoder judges the space before it knows the length
	n, err := secretEncoding.Decode(secret[:], in[:])
	if err != nil || n != keySecret {
		return "", h, false
	}
	return id, sha256.Sum256(secret[:keySecret]), true
}

// Equal compares in constant time.
func (h KeyHash) Equal(other KeyHash) bool { return subtle.ConstantTimeCompare(h[:], other[:]) == 1 }

// Check reports what is wrong with the id, nil if nothing is.
func (id APIKeyID) Check() error {
	if len(id) != keyIDChars || strings.ContainsFunc(string(id), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '2' || r > '7')
	}) {
		return fmt.Errorf("the id of an API key has %d of a-z and 2-7", keyIDChars)
	}
	return nil
}

// Allows reports whether the key has the scope.
func (k *APIKey) Allows(s Scope) bool {
	return slices.Contains(k.Scopes, s) || slices.Contains(k.Scopes, ScopeAll)
}

// Check returns what is wrong with a key, KindInvalid, "bad_key"; nil if nothing is.
func (k *APIKey) Check() error {
	if err := k.check(); err != nil {
		return &push.Error{Kind: push.KindInvalid, Code: "bad_key", Detail: err.Error()}
	}
	return nil
}

func (k *APIKey) check() error {
	if err := k.Product.Check(); err != nil {
		return err
	}
	if err := k.ID.Check(); err != nil {
		return err
	}
	if err := checkName(k.Name); err != nil {
		return err
	}
	if k.Hash == (KeyHash{}) {
		return fmt.Errorf("an API key has a hash")
	}
	if len(k.Scopes) == 0 {
		return fmt.Errorf("an API key has at least one scope")
	}
	for _, s := range k.Scopes {
		if !slices.Contains(Scopes(), s) {
			return fmt.Errorf("the scopes of an API key are among %v", Scopes())
		}
	}
	if k.Expires < 0 {
		return fmt.Errorf("an API key expires after 1970, or never")
	}
	return nil
}

// AddedAPIKey returns k as AddAPIKey stores it. Implementations call it.
func AddedAPIKey(k APIKey, now push.MilliTime) (APIKey, error) {
	k = k.Clone()
	k.Created, k.Revoked = now, 0
	slices.Sort(k.Scopes)
	k.Scopes = slices.Compact(k.Scopes)
	return k, k.Check()
}

// Clone returns a copy that shares nothing.
func (k APIKey) Clone() APIKey {
	k.Scopes = slices.Clone(k.Scopes)
	return k
}
