package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"carillon/server/nextversion"
	"carillon/server/push"
)

// How records are stored, the same in every store that stores bytes: JSON objects, flat, each with the version of its
// form. A new field is no new form: what an older node does not know it keeps as it found it when it writes the product
// anew, so that nodes one version apart can work on one store. A form that an older node could not read rightly gets a
// higher version, and that node refuses it.

// form is the version of all records that are written here.
const form = 1

type productRecord struct {
	Form           int            `json:"v"`
	ID             push.ProductID `json:"id"`
	Name           string         `json:"name"`
	Shards         int            `json:"shards"`
	Disabled       bool           `json:"disabled"`
	FirstVisit     push.StartAt   `json:"first_visit_first"`
	LaterVisit     push.StartAt   `json:"first_visit_later"`
	CommonVisit    push.StartAt   `json:"first_visit_common"`
	BodyBytes      int            `json:"limit_body_bytes"`
	OwnMessages    int            `json:"limit_own_messages"`
	OwnBytes       int            `json:"limit_own_bytes"`
	CommonMessages int            `json:"limit_common_messages"`
	CommonBytes    int            `json:"limit_common_bytes"`
	TTL            int64          `json:"limit_ttl_ms"`
	DevicesPerUser int            `json:"limit_devices_per_user"`
	DeviceUnseen   int64          `json:"limit_device_unseen_ms"`
	KeyTTL         int64          `json:"limit_key_ttl_ms"`
	MostSessions   int            `json:"limit_sessions"`
	TokenLifetime  int64          `json:"token_lifetime_ns"`
	Sessions       *policyRecord  `json:"session_policy"` // null: none
	JWKS           string         `json:"jwks"`
	ApprovalAbove  int            `json:"approval_above"`
	ApprovalAll    bool           `json:"approval_everyone_free"`
	Created        push.MilliTime `json:"created"`
	Updated        push.MilliTime `json:"updated"`
	Revision       uint64         `json:"revision"`
}

// EncodeProduct returns a product as it is stored. old is what it takes the place of, nil if nothing.
func EncodeProduct(p Product, old []byte) ([]byte, error) {
	b, err := json.Marshal(productRecord{
		Form: form, ID: p.ID, Name: p.Name, Shards: p.Shards, Disabled: p.Disabled,
		FirstVisit: p.FirstVisit.First, LaterVisit: p.FirstVisit.Later, CommonVisit: p.FirstVisit.Common,
		BodyBytes: p.Limits.BodyBytes, OwnMessages: p.Limits.OwnMessages, OwnBytes: p.Limits.OwnBytes,
		CommonMessages: p.Limits.CommonMessages, CommonBytes: p.Limits.CommonBytes, TTL: p.Limits.TTL.Milliseconds(),
		DevicesPerUser: p.Limits.DevicesPerUser, DeviceUnseen: p.Limits.DeviceUnseen.Milliseconds(),
		KeyTTL: p.Limits.KeyTTL.Milliseconds(), MostSessions: p.Limits.Sessions, TokenLifetime: int64(p.TokenLifetime), Sessions: recordOf(p.Sessions),
		JWKS: p.JWKS, ApprovalAbove: p.Approval.Above, ApprovalAll: p.Approval.EveryoneFree,
		Created: p.Created, Updated: p.Updated, Revision: p.Revision,
	})
	if b = nextversion.Object(b); err != nil || old == nil {
		return b, err
	}
	var all, now map[string]json.RawMessage
	if err := json.Unmarshal(old, &all); err != nil {
		return nil, errRecord("product", errUnreadable)
	}
	if err := json.Unmarshal(b, &now); err != nil {
		return nil, errRecord("product", errUnreadable)
	}
	maps.Copy(all, now) // every field that is known here is written, so nothing old of them stays
	return json.Marshal(all)
}

// DecodeProduct reads what EncodeProduct wrote.
func DecodeProduct(b []byte) (Product, error) {
	var r productRecord
	if err := decode("product", b, &r, &r.Form); err != nil {
		return Product{}, err
	}
	sessions, err := r.Sessions.policy()
	if err != nil {
		return Product{}, errRecord("product", err)
	}
	return Product{
		ID: r.ID, Name: r.Name, Shards: r.Shards, Disabled: r.Disabled,
		FirstVisit: push.FirstVisit{First: r.FirstVisit, Later: r.LaterVisit, Common: r.CommonVisit},
		Limits: push.Limits{
			BodyBytes: r.BodyBytes, OwnMessages: r.OwnMessages, OwnBytes: r.OwnBytes,
			CommonMessages: r.CommonMessages, CommonBytes: r.CommonBytes, TTL: time.Duration(r.TTL) * time.Millisecond,
			DevicesPerUser: r.DevicesPerUser, DeviceUnseen: time.Duration(r.DeviceUnseen) * time.Millisecond,
			KeyTTL: time.Duration(r.KeyTTL) * time.Millisecond, Sessions: r.MostSessions,
		},
		TokenLifetime: time.Duration(r.TokenLifetime), Sessions: sessions, JWKS: r.JWKS,
		Approval: Approval{Above: r.ApprovalAbove, EveryoneFree: r.ApprovalAll},
		Created:  r.Created, Updated: r.Updated, Revision: r.Revision,
	}, nil
}

type deviceKeyRecord struct {
	Form     int            `json:"v"`
	Product  push.ProductID `json:"product"`
	ID       KeyID          `json:"id"`
	Alg      Algorithm      `json:"alg"`
	Material []byte         `json:"material"` // not of type Material, which hides itself
	Name     string         `json:"name"`
	Created  push.MilliTime `json:"created"`
	Revoked  push.MilliTime `json:"revoked"`
}

// EncodeDeviceKey returns a key as it is stored, its material in clear.
func EncodeDeviceKey(k DeviceKey) ([]byte, error) {
	return encode(deviceKeyRecord{form, k.Product, k.ID, k.Alg, k.Material, k.Name, k.Created, k.Revoked})
}

// DecodeDeviceKey reads what EncodeDeviceKey wrote.
func DecodeDeviceKey(b []byte) (DeviceKey, error) {
	var r deviceKeyRecord
	if err := decode("device key", b, &r, &r.Form); err != nil {
		return DeviceKey{}, err
	}
	return DeviceKey{r.Product, r.ID, r.Alg, r.Material, r.Name, r.Created, r.Revoked}, nil
}

type apiKeyRecord struct {
	Form    int            `json:"v"`
	ID      APIKeyID       `json:"id"`
	Product push.ProductID `json:"product"`
	Name    string         `json:"name"`
	Scopes  []Scope        `json:"scopes"`
	Hash    []byte         `json:"hash"`
	Created push.MilliTime `json:"created"`
	Expires push.MilliTime `json:"expires"`
	Revoked push.MilliTime `json:"revoked"`
}

// EncodeAPIKey returns a key as it is stored.
func EncodeAPIKey(k APIKey) ([]byte, error) {
	return encode(apiKeyRecord{
		form, k.ID, k.Product, k.Name, k.Scopes, k.Hash[:], k.Created, k.Expires, k.Revoked,
	})
}

// DecodeAPIKey reads what EncodeAPIKey wrote.
func DecodeAPIKey(b []byte) (APIKey, error) {
	var r apiKeyRecord
	if err := decode("API key", b, &r, &r.Form); err != nil {
		return APIKey{}, err
	}
	k := APIKey{r.ID, r.Product, r.Name, r.Scopes, KeyHash{}, r.Created, r.Expires, r.Revoked}
	if copy(k.Hash[:], r.Hash) != len(k.Hash) || len(r.Hash) != len(k.Hash) {
		return APIKey{}, errRecord("API key", fmt.Errorf("a hash of %d bytes", len(r.Hash)))
	}
	return k, nil
}

type revocationRecord struct {
	Form    int            `json:"v"`
	Product push.ProductID `json:"product"`
	User    push.UserID    `json:"user"`
	Device  push.DeviceID  `json:"device"`
	TokenID string         `json:"token_id"`
	Reason  string         `json:"reason"`
	At      push.MilliTime `json:"at"`
	Until   push.MilliTime `json:"until"`
	Lifted  bool           `json:"lifted"`
	Change  Change         `json:"change"`
}

// EncodeRevocation returns a revocation as it is stored.
func EncodeRevocation(r Revocation) ([]byte, error) {
	return encode(revocationRecord{
		form, r.Product, r.User, r.Device, r.TokenID, r.Reason, r.At, r.Until, r.Lifted, r.Change,
	})
}

// DecodeRevocation reads what EncodeRevocation wrote.
func DecodeRevocation(b []byte) (Revocation, error) {
	var r revocationRecord
	if err := decode("revocation", b, &r, &r.Form); err != nil {
		return Revocation{}, err
	}
	return Revocation{
		r.Product, RevocationTarget{r.User, r.Device, r.TokenID}, r.Reason, r.At, r.Until, r.Lifted, r.Change,
	}, nil
}

func encode(record any) ([]byte, error) {
	b, err := json.Marshal(record)
	return nextversion.Object(b), err
}

// errUnreadable stands for errors of encoding/json, which might quote a secret.
var errUnreadable = errors.New("not readable")

// decode reads a record into to, whose form is then at have.
func decode(what string, b []byte, to any, have *int) error {
	if err := json.Unmarshal(b, to); err != nil {
		return errRecord(what, errUnreadable)
	}
	if *have != form {
		return errRecord(what, fmt.Errorf("its form is %d, this version reads %d", *have, form))
	}
	return nil
}

func errRecord(what string, err error) error {
	return &push.Error{
		Kind: push.KindInternal, Code: "catalog_damaged", Detail: "the catalog holds what cannot be read",
		Err: fmt.Errorf("a stored %s: %w", what, err),
	}
}
