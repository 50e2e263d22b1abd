package center

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"carillon/server/center/strictjson"
	"carillon/server/push"
	"carillon/server/saver"
)

// request is one message that somebody asks to publish, judged and in its canonical form.
type request struct {
	targets  []saver.Target // sorted by user, each once; empty if for tags or everyone
	tags     *push.TagExpr  // canonical; whose devices have such tags
	everyone bool
	devices  int // devices named, if it is for single devices

	platforms push.PlatformSet // only on these; 0: on all
	classes   []string         // only of these, sorted; nil: of all

	membership membership // asked for, with tags

	message push.Message  // without id and times
	ttl     time.Duration // 0: not said
	key     saver.IdempotencyKey
}

// Members of the objects that publish requests are made of; the indexes follow the order of the names.
const (
	inTo = iota
	inMessage
	inValidateOnly                  // of a single publish
	inKey          = inValidateOnly // of an item of a batch
)

const (
	inUsers = iota
	inDevices
	inTags
	inEveryone
	inPlatforms
	inClasses
	inMembership
	inList // of a task alone
)

// ofAudience are the members of which exactly one says whom a message is for.
var ofAudience = strictjson.Set(0).With(inUsers).With(inDevices).With(inTags).With(inEveryone).With(inList)

const (
	inRefUser = iota
	inRefDevice
)

const (
	inBody = iota
	inBodyBase64
	inPersistent
	inTTL
	inCollapseKey
	inHeaders
	inRef
)

const (
	inMessages = iota
	inBatchValidateOnly
)

var (
	publishShape  = strictjson.NewShape(2, "to", "message", "validate_only")
	itemShape     = strictjson.NewShape(2, "to", "message", "idempotency_key")
	batchShape    = strictjson.NewShape(1, "messages", "validate_only")
	audienceShape = strictjson.NewShape(0, "users", "devices", "tags", "everyone", "platforms", "classes", "membership")
	deviceShape   = strictjson.NewShape(2, "user", "device")
	messageShape  = strictjson.NewShape(0,
		"body", "body_base64", "persistent", "ttl_seconds", "collapse_key", "headers", "ref")

	userRule        = strictjson.Rule{Least: 1, Most: push.MaxUserID, NoControl: true}
	deviceRule      = strictjson.Rule{Least: 1, Most: push.MaxDeviceID, NoControl: true}
	refRule         = strictjson.Rule{Least: 1, Most: push.MaxRef, NoControl: true}
	collapseRule    = strictjson.Rule{Least: 1, Most: push.MaxCollapseKey, NoControl: true}
	headerNameRule  = strictjson.Rule{Least: 1, Most: push.MaxHeaderBytes, NoControl: true}
	headerValueRule = strictjson.Rule{Most: push.MaxHeaderBytes, NoControl: true}
)

// maxTTL is the longest time to live that the contract admits, in seconds.
const maxTTL = 7 * 24 * 60 * 60

// maxKey is the most bytes of an idempotency key.
const maxKey = 255

// parser reads publish requests under the limits of a gateway and of a product.
type parser struct {
	r      *strictjson.Reader
	limits *Limits
	of     push.Limits // of the product, defaults filled in
	large  error       // the message at hand is too large for the product
}

// parsePublish reads the body of a single publish.
func parsePublish(body []byte, l *Limits, of push.Limits) (req *request, validateOnly bool, err error) {
	p := parser{r: strictjson.NewReader(body), limits: l, of: of}
	req = new(request)
	p.r.Object(publishShape, func(i int) {
		switch i {
		case inTo:
			p.audience(req)
		case inMessage:
			p.message(req)
		case inValidateOnly:
			validateOnly, _ = p.r.Bool()
		}
	})
	if err := p.r.End(); err != nil {
		return nil, false, err
	}
	if errs := p.r.Errors(); len(errs) > 0 {
		return nil, false, &invalid{errs}
	}
	return req, validateOnly, p.large
}

// batchItem is one message of a batch: a request, or why it is none.
type batchItem struct {
	request *request
	err     error
}

// parseBatch reads the body of a batch. The error is one of the batch as a whole.
func parseBatch(body []byte, l *Limits, of push.Limits) (items []batchItem, validateOnly bool, err error) {
	p := parser{r: strictjson.NewReader(body), limits: l, of: of}
	p.r.Object(batchShape, func(i int) {
		switch i {
		case inMessages:
			p.r.Array(1, l.Items, func(int) { items = append(items, p.item()) })
		case inBatchValidateOnly:
			validateOnly, _ = p.r.Bool()
		}
	})
	if err := p.r.End(); err != nil {
		return nil, false, err
	}
	if errs := p.r.Errors(); len(errs) > 0 {
		return nil, false, &invalid{errs}
	}
	targets := 0
	for _, it := range items {
		if it.request != nil {
			targets += len(it.request.targets)
		}
	}
	if targets > l.BatchTargets {
		return nil, false, push.Errorf(push.KindTooLarge, string(codeTooManyTargets),
			"the messages of a batch together name at most %d users", l.BatchTargets)
	}
	return items, validateOnly, nil
}

// item reads one message of a batch, which is judged by itself.
func (p *parser) item() batchItem {
	req := new(request)
	p.large = nil
	mark := p.r.Mark()
	p.r.Object(itemShape, func(i int) {
		switch i {
		case inTo:
			p.audience(req)
		case inMessage:
			p.message(req)
		case inKey:
			req.key = p.key()
		}
	})
	if errs := p.r.Since(mark); errs != nil {
		return batchItem{err: &invalid{errs}}
	}
	if p.large != nil {
		return batchItem{err: p.large}
	}
	return batchItem{request: req}
}

func (p *parser) key() saver.IdempotencyKey {
	s, ok := p.r.Text(strictjson.Rule{Least: 1, Most: maxKey})
	if ok && !isPrintable(s, ' ') {
		p.r.Note(strictjson.BadFormat, "printable ASCII characters only")
	}
	return saver.IdempotencyKey(s)
}

func (p *parser) audience(req *request) { p.audienceOf(req, audienceShape, nil) }

// audienceOf reads an audience; a shape that has a list behind the members of audienceShape comes with what reads it.
func (p *parser) audienceOf(req *request, shape *strictjson.Shape, list func()) {
	seen, ok := p.r.Object(shape, func(i int) {
		switch i {
		case inList:
			list()
		case inUsers:
			p.users(req)
		case inDevices:
			p.devices(req)
		case inTags:
			req.tags = p.tags()
		case inEveryone:
			req.everyone = p.r.True()
		case inPlatforms:
			req.platforms = p.platforms()
		case inClasses:
			req.classes = p.classes()
		case inMembership:
			if i, ok := p.r.Word(membershipWords...); ok {
				req.membership = atSend + membership(i)
			}
		}
	})
	if ok && (seen&ofAudience).Count() != 1 {
		what := "exactly one of users, devices, tags and everyone"
		if list != nil {
			what = "exactly one of users, devices, tags, everyone and list"
		}
		p.r.Note(strictjson.NotOneOf, what)
	}
	if ok && seen.Has(inMembership) && !seen.Has(inTags) {
		p.r.Note(strictjson.NotAllowed, "only with tags", audienceShape.Name(inMembership))
	}
	req.narrow()
}

func (p *parser) users(req *request) {
	var users []saver.Target
	p.r.Array(1, p.limits.Targets, func(int) {
		s, _ := p.r.Text(userRule)
		users = append(users, saver.Target{User: push.UserID(s)})
	})
	if len(users) == 1 {
		req.targets = users
		return
	}
	given := slices.Clone(users)
	slices.SortFunc(users, func(a, b saver.Target) int { return cmp.Compare(a.User, b.User) })
	req.targets = slices.CompactFunc(users, func(a, b saver.Target) bool { return a.User == b.User })
	if len(req.targets) < len(given) {
		noteRepeats(p.r, given, func(t saver.Target) push.UserID { return t.User })
	}
}

// noteRepeats notes each item that stands in the list before.
func noteRepeats[T any, K comparable](r *strictjson.Reader, items []T, key func(T) K) {
	seen := make(map[K]bool, len(items))
	var none K
	for i, it := range items {
		k := key(it)
		if k != none && seen[k] { // what is none was noted already
			r.NoteItem(i, strictjson.Duplicate, "stands in the list before")
		}
		seen[k] = true
	}
}

// deviceRef is one device of a user.
type deviceRef struct {
	user   push.UserID
	device push.DeviceID
}

func (p *parser) devices(req *request) {
	var refs []deviceRef
	p.r.Array(1, p.limits.Targets, func(int) {
		var ref deviceRef
		p.r.Object(deviceShape, func(i int) {
			switch i {
			case inRefUser:
				s, _ := p.r.Text(userRule)
				ref.user = push.UserID(s)
			case inRefDevice:
				s, _ := p.r.Text(deviceRule)
				ref.device = push.DeviceID(s)
			}
		})
		refs = append(refs, ref)
	})
	noteRepeats(p.r, refs, func(r deviceRef) deviceRef { return r })
	slices.SortFunc(refs, func(a, b deviceRef) int {
		return cmp.Or(cmp.Compare(a.user, b.user), cmp.Compare(a.device, b.device))
	})
	req.devices = len(refs)
	req.targets = nil // of users, if both were given, which is noted elsewhere
	for _, ref := range refs {
		if n := len(req.targets); n > 0 && req.targets[n-1].User == ref.user {
			f := req.targets[n-1].Filter
			f.Devices = append(f.Devices, ref.device)
			continue
		}
		req.targets = append(req.targets, saver.Target{
			User: ref.user, Filter: &push.Filter{Devices: []push.DeviceID{ref.device}},
		})
	}
}

func (p *parser) message(req *request) {
	m := &req.message
	m.Persistent = true
	r := p.r
	seen, ok := r.Object(messageShape, func(i int) {
		switch i {
		case inBody:
			m.Kind = push.BodyJSON
			m.Body, _ = r.Value(p.limits.BodyDepth)
		case inBodyBase64:
			m.Kind = push.BodyBinary
			m.Body, _ = r.Base64()
		case inPersistent:
			m.Persistent, _ = r.Bool()
		case inTTL:
			n, _ := r.Int(1, min(maxTTL, max(1, int64(p.of.TTL/time.Second))))
			req.ttl = time.Duration(n) * time.Second
		case inCollapseKey:
			m.CollapseKey, _ = r.Text(collapseRule)
		case inHeaders:
			m.Headers = p.headers()
		case inRef:
			m.Ref, _ = r.Text(refRule)
		}
	})
	if !ok {
		return
	}
	if seen.Has(inBody) == seen.Has(inBodyBase64) {
		r.Note(strictjson.NotOneOf, "exactly one of body and body_base64")
	}
	if !m.Persistent {
		for _, i := range [...]int{inTTL, inCollapseKey} {
			if seen.Has(i) {
				r.Note(strictjson.NotAllowed, "only with a persistent message", messageShape.Name(i))
			}
		}
	}
	if len(m.Body) > p.of.BodyBytes {
		p.large = push.Errorf(push.KindTooLarge, string(codeMessageTooLarge), "a body has at most %d bytes", p.of.BodyBytes)
	}
}

func (p *parser) headers() []push.Header {
	var hs []push.Header
	size := 0
	_, ok := p.r.Members(push.MaxHeaders, func(name string) {
		p.r.Check(name, headerNameRule)
		value, _ := p.r.Text(headerValueRule)
		hs = append(hs, push.Header{Name: name, Value: value})
		size += len(name) + len(value)
	})
	if !ok {
		return nil
	}
	slices.SortFunc(hs, func(a, b push.Header) int { return cmp.Compare(a.Name, b.Name) })
	for i := 1; i < len(hs); i++ {
		if hs[i].Name == hs[i-1].Name {
			p.r.Note(strictjson.DuplicateMember, "a header stands once")
		}
	}
	if size > push.MaxHeaderBytes {
		p.r.Note(strictjson.TooLong, fmt.Sprintf("names and values together have at most %d bytes", push.MaxHeaderBytes))
	}
	return hs
}

// keyOf judges the header Idempotency-Key.
func keyOf(header *string) (saver.IdempotencyKey, error) {
	switch {
	case header == nil:
		return "", nil
	case *header == "":
		return "", &badParameter{"Idempotency-Key", strictjson.Empty, "1 to 255 printable ASCII characters"}
	case len(*header) > maxKey:
		return "", &badParameter{"Idempotency-Key", strictjson.TooLong, "1 to 255 printable ASCII characters"}
	case !isPrintable(*header, ' '):
		return "", &badParameter{"Idempotency-Key", strictjson.BadFormat, "1 to 255 printable ASCII characters"}
	}
	return saver.IdempotencyKey(*header), nil
}
