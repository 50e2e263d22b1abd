package center

import (
	"encoding/base64"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"carillon/server/catalog"
	"carillon/server/center/strictjson"
	"carillon/server/push"
)

// limitField is one member of LimitsPatch.
type limitField struct {
	name        string
	least, most int64
	set         func(l *push.Limits, n int64)
}

var limitFields = []limitField{
	{"body_bytes", 1, 64 << 10, func(l *push.Limits, n int64) { l.BodyBytes = int(n) }},
	{"own_messages", 1, 100_000, func(l *push.Limits, n int64) { l.OwnMessages = int(n) }},
	{"own_bytes", 128 << 10, 64 << 20, func(l *push.Limits, n int64) { l.OwnBytes = int(n) }},
	{"common_messages", 1, 1_000_000, func(l *push.Limits, n int64) { l.CommonMessages = int(n) }},
	{"common_bytes", 128 << 10, 1 << 30, func(l *push.Limits, n int64) { l.CommonBytes = int(n) }},
	{"ttl_seconds", 1, maxTTL, func(l *push.Limits, n int64) { l.TTL = time.Duration(n) * time.Second }},
	{"devices_per_user", 1, 1000, func(l *push.Limits, n int64) { l.DevicesPerUser = int(n) }},
	{"device_unseen_seconds", 86400, 365 * 86400, func(l *push.Limits, n int64) {
		l.DeviceUnseen = time.Duration(n) * time.Second
	}},
	{"key_ttl_seconds", 60, 86400, func(l *push.Limits, n int64) { l.KeyTTL = time.Duration(n) * time.Second }},
	{"sessions", 1, 1_000_000_000, func(l *push.Limits, n int64) { l.Sessions = int(n) }},
}

const (
	inCreateID = iota
	inCreateName
	inCreateTokenLifetime
	inCreateShards
	inCreateLimits
	inCreateFirstVisit
	inCreateSessionPolicy
	inCreateJWKS
	inCreateApproval
)

const (
	inPatchName = iota
	inPatchDisabled
	inPatchTokenLifetime
	inPatchLimits
	inPatchFirstVisit
	inPatchSessionPolicy
	inPatchJWKS
	inPatchApproval
)

const (
	inFirst = iota
	inLater
	inCommonStart
)

const (
	inKeyAlg = iota
	inKeyID
	inKeyName
	inKeySecret
	inKeyPublic
)

const (
	inAPIScopes = iota
	inAPIName
	inAPIExpires
)

var (
	createShape     = strictjson.NewShape(1, "id", "name", "token_lifetime_seconds", "shards", "limits", "first_visit", "session_policy", "jwks_url", "task_approval")
	patchShape      = strictjson.NewShape(0, "name", "disabled", "token_lifetime_seconds", "limits", "first_visit", "session_policy", "jwks_url", "task_approval")
	limitsShape     = strictjson.NewShape(0, limitNames()...)
	firstVisitShape = strictjson.NewShape(0, "first", "later", "common")
	deviceKeyShape  = strictjson.NewShape(1, "alg", "id", "name", "secret_base64", "public_key")
	apiKeyShape     = strictjson.NewShape(1, "scopes", "name", "expires")
	drainShape      = strictjson.NewShape(0, "spread_seconds", "address")
	backupShape     = strictjson.NewShape(1, "directory")

	nameRule      = strictjson.Rule{Most: catalog.MaxName, NoControl: true, NoC1: true}
	jwksRule      = strictjson.Rule{Least: 1, Most: catalog.MaxJWKS, NoControl: true}
	directoryRule = strictjson.Rule{Least: 1, Most: 4096, NoControl: true}
)

// Bounds of what administration takes.
const (
	maxShards       = 1024
	minTokenSeconds = 60
	maxTokenSeconds = 365 * 86400
	maxPublicKey    = 16 << 10
)

func limitNames() []string {
	names := make([]string, len(limitFields))
	for i, f := range limitFields {
		names[i] = f.name
	}
	return names
}

// parseBody reads a body that is one object and hands back what is wrong with it.
func parseBody(body []byte, shape *strictjson.Shape, member func(r *strictjson.Reader, i int), after func(
	r *strictjson.Reader, seen strictjson.Set,
)) error {
	r := strictjson.NewReader(body)
	seen, ok := r.Object(shape, func(i int) { member(r, i) })
	if ok && after != nil {
		after(r, seen)
	}
	if err := r.End(); err != nil {
		return err
	}
	if errs := r.Errors(); len(errs) > 0 {
		return &invalid{errs}
	}
	return nil
}

// notEmpty notes an object without members.
func notEmpty(r *strictjson.Reader, seen strictjson.Set) {
	if seen == 0 {
		r.Note(strictjson.TooFew, "at least one member")
	}
}

// parseProduct reads ProductCreate.
func parseProduct(body []byte) (p catalog.Product, err error) {
	err = parseBody(body, createShape, func(r *strictjson.Reader, i int) {
		switch i {
		case inCreateID:
			s, ok := r.Text(strictjson.Rule{})
			p.ID = push.ProductID(s)
			if ok && p.ID.Check() != nil {
				r.Note(strictjson.BadFormat, p.ID.Check().Error())
			}
		case inCreateName:
			p.Name, _ = r.Text(nameRule)
		case inCreateTokenLifetime:
			readTokenLifetime(r, &p)
		case inCreateShards:
			n, _ := r.Int(1, maxShards)
			p.Shards = int(n)
		case inCreateLimits:
			readLimits(r, &p.Limits)
		case inCreateFirstVisit:
			readFirstVisit(r, &p.FirstVisit)
		case inCreateSessionPolicy:
			p.Sessions = readSessionPolicy(r)
		case inCreateJWKS:
			readJWKS(r, &p)
		case inCreateApproval:
			readApproval(r, &p.Approval)
		}
	}, nil)
	return p, err
}

// patchProduct reads ProductPatch over p.
func patchProduct(body []byte, p *catalog.Product) error {
	return parseBody(body, patchShape, func(r *strictjson.Reader, i int) {
		switch i {
		case inPatchName:
			p.Name, _ = r.Text(nameRule)
		case inPatchDisabled:
			p.Disabled, _ = r.Bool()
		case inPatchTokenLifetime:
			readTokenLifetime(r, p)
		case inPatchLimits:
			readLimits(r, &p.Limits)
		case inPatchFirstVisit:
			readFirstVisit(r, &p.FirstVisit)
		case inPatchSessionPolicy:
			p.Sessions = readSessionPolicy(r)
		case inPatchJWKS:
			readJWKS(r, p)
		case inPatchApproval:
			readApproval(r, &p.Approval)
		}
	}, notEmpty)
}

func readTokenLifetime(r *strictjson.Reader, p *catalog.Product) {
	if r.Null() {
		p.TokenLifetime = 0
		return
	}
	n, _ := r.Int(minTokenSeconds, maxTokenSeconds)
	p.TokenLifetime = time.Duration(n) * time.Second
}

func readJWKS(r *strictjson.Reader, p *catalog.Product) {
	if r.Null() {
		p.JWKS = ""
		return
	}
	var ok bool
	if p.JWKS, ok = r.Text(jwksRule); !ok {
		return
	}
	if err := catalog.CheckJWKS(p.JWKS); err != nil {
		r.Note(strictjson.BadFormat, err.Error())
	}
}

func readLimits(r *strictjson.Reader, l *push.Limits) {
	seen, ok := r.Object(limitsShape, func(i int) {
		f := &limitFields[i]
		if r.Null() {
			f.set(l, 0)
			return
		}
		n, _ := r.Int(f.least, f.most)
		f.set(l, n)
	})
	if ok {
		notEmpty(r, seen)
	}
}

func readFirstVisit(r *strictjson.Reader, f *push.FirstVisit) {
	seen, ok := r.Object(firstVisitShape, func(i int) {
		at := push.StartDefault
		if !r.Null() {
			word, _ := r.Word("beginning", "head")
			at = [...]push.StartAt{push.StartBeginning, push.StartHead}[max(word, 0)]
		}
		switch i {
		case inFirst:
			f.First = at
		case inLater:
			f.Later = at
		case inCommonStart:
			f.Common = at
		}
	})
	if ok {
		notEmpty(r, seen)
	}
}

// newDeviceKey is what somebody asks for with DeviceKeyCreate.
type newDeviceKey struct {
	catalog.DeviceKey        // without material
	secret            []byte // of HS256, if it was given
	public            string // PEM, of the others
}

// parseDeviceKey reads DeviceKeyCreate.
func parseDeviceKey(body []byte) (k newDeviceKey, err error) {
	algs := []catalog.Algorithm{catalog.HS256, catalog.RS256, catalog.ES256, catalog.EdDSA}
	err = parseBody(body, deviceKeyShape, func(r *strictjson.Reader, i int) {
		switch i {
		case inKeyAlg:
			if word, ok := r.Word("HS256", "RS256", "ES256", "EdDSA"); ok {
				k.Alg = algs[word]
			}
		case inKeyID:
			s, ok := r.Text(strictjson.Rule{})
			k.ID = catalog.KeyID(s)
			if ok && k.ID.Check() != nil {
				r.Note(strictjson.BadFormat, k.ID.Check().Error())
			}
		case inKeyName:
			k.Name, _ = r.Text(nameRule)
		case inKeySecret:
			b, ok := r.Base64()
			if ok && base64.StdEncoding.EncodedLen(len(b)) > base64.StdEncoding.EncodedLen(catalog.MaxSecret) {
				r.Note(strictjson.TooLong, fmt.Sprintf("at most %d bytes", catalog.MaxSecret))
			}
			k.secret = b
		case inKeyPublic:
			k.public, _ = r.Text(strictjson.Rule{Most: maxPublicKey})
		}
	}, func(r *strictjson.Reader, seen strictjson.Set) {
		switch {
		case k.Alg == "":
		case k.Alg == catalog.HS256:
			if seen.Has(inKeyPublic) {
				r.Note(strictjson.NotAllowed, "not with HS256", deviceKeyShape.Name(inKeyPublic))
			}
		default:
			if seen.Has(inKeySecret) {
				r.Note(strictjson.NotAllowed, "only with HS256", deviceKeyShape.Name(inKeySecret))
			}
			if !seen.Has(inKeyPublic) {
				r.Note(strictjson.Required, "the member is missing", deviceKeyShape.Name(inKeyPublic))
			}
		}
	})
	return k, err
}

// parseAPIKey reads ApiKeyCreate.
func parseAPIKey(body []byte) (k catalog.APIKey, err error) {
	var words []string
	for _, s := range catalog.Scopes() {
		words = append(words, string(s))
	}
	err = parseBody(body, apiKeyShape, func(r *strictjson.Reader, i int) {
		switch i {
		case inAPIScopes:
			r.Array(1, len(words), func(int) {
				word, ok := r.Word(words...)
				if !ok {
					return
				}
				s := catalog.Scope(words[word])
				if slices.Contains(k.Scopes, s) {
					r.Note(strictjson.Duplicate, "stands in the list before")
				}
				k.Scopes = append(k.Scopes, s)
			})
		case inAPIName:
			k.Name, _ = r.Text(nameRule)
		case inAPIExpires:
			s, ok := r.Text(strictjson.Rule{})
			if !ok {
				return
			}
			t, err := time.Parse(time.RFC3339, s)
			if err != nil {
				r.Note(strictjson.BadFormat, "a moment of RFC 3339, such as 2030-01-01T00:00:00Z")
			}
			k.Expires = push.Milli(t)
		}
	}, nil)
	return k, err
}

// parseBackup reads BackupRequest.
func parseBackup(body []byte) (directory string, err error) {
	err = parseBody(body, backupShape, func(r *strictjson.Reader, _ int) {
		var ok bool
		if directory, ok = r.Text(directoryRule); ok && !filepath.IsAbs(directory) {
			r.Note(strictjson.BadFormat, "an absolute path is needed: nobody can tell where the gateway was started")
		}
	}, nil)
	return directory, err
}

const (
	inDrainSpread = iota
	inDrainAddress
)

const mostDrainSpread = 3600 // seconds

// drainAddress is what an origin looks like, or none: as the contract has it.
var (
	drainAddress     = regexp.MustCompile(`^(https?://[^\x00-\x20\x7f/?#@\\]+)?$`)
	drainAddressRule = strictjson.Rule{Most: 255, NoControl: true}
)

// parseDrain reads DrainRequest.
func parseDrain(body []byte) (d Drain, err error) {
	err = parseBody(body, drainShape, func(r *strictjson.Reader, i int) {
		switch i {
		case inDrainSpread:
			n, _ := r.Int(1, mostDrainSpread)
			d.Spread = time.Duration(n) * time.Second
		case inDrainAddress:
			s, ok := r.Text(drainAddressRule)
			if ok && !drainAddress.MatchString(s) {
				r.Note(strictjson.BadFormat, "https://host or https://host:port, without a path")
			}
			d.Address = &s
		}
	}, nil)
	return d, err
}
