package center

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"carillon/server/auth"
	"carillon/server/push"
)

// endpoint puts around a handler what comes before it: whose request it is, whether there is room for it, and its body.
func (c *Center) endpoint(op *operation, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a := callOf(r.Context())
		a.route = op.pattern
		leave, err := c.admit(op, a, r)
		if err != nil {
			c.refuse(a, err)
			return
		}
		defer leave()
		if op.body == listBody {
			if a.media = mediaOf(r.Header); a.media == "" {
				c.refuse(a, push.Errorf(push.KindInvalid, string(codeUnsupportedMediaType), "send Content-Type: %s or %s in UTF-8, not encoded otherwise",
					mediaCSV, mediaNDJSON))
				return
			}
		} else if op.body != noBody && (op.body != maybeBody || r.ContentLength != 0) {
			if a.body, err = c.readBody(op, w, r); err != nil {
				c.refuse(a, err)
				return
			}
		}
		next(w, r)
	}
}

// admit checks the credential, and counts the request among those of its product until leave is called.
func (c *Center) admit(op *operation, a *call, r *http.Request) (leave func(), err error) {
	header := r.Header.Get("Authorization")
	if op.scope == "" {
		if secret, ok := auth.BearerOf(header); !ok || !auth.EqualSecret(secret, c.cfg.Secret) {
			return nil, errUnauthenticated
		}
		return func() {}, nil
	}
	if a.principal, err = c.cfg.Keys.Check(r.Context(), header); err != nil {
		return nil, err
	}
	if err := a.principal.Require(op.scope); err != nil {
		return nil, err
	}
	n, most := counter(&c.inFlight, a.principal.Product.ID), c.limits.InFlight
	if op.stream {
		n, most = counter(&c.streams, a.principal.Product.ID), c.limits.Streams
	}
	if n.Add(1) > int64(most) {
		n.Add(-1)
		return nil, &push.Error{Kind: push.KindLimited, Code: string(codeTooManyRequests), After: time.Second,
			Detail: "the product has too many requests under way; wait for answers, or send batches"}
	}
	return func() { n.Add(-1) }, nil
}

// counter returns the product's among counters by product.
func counter(of *sync.Map, p push.ProductID) *atomic.Int64 {
	if n, ok := of.Load(p); ok {
		return n.(*atomic.Int64)
	}
	n, _ := of.LoadOrStore(p, new(atomic.Int64))
	return n.(*atomic.Int64)
}

// readBody reads the whole body, at most as much as the operation takes.
func (c *Center) readBody(op *operation, w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if !isJSON(r.Header) {
		return nil, errUnsupportedMediaType
	}
	most := int64(c.limits.Request)
	if op.body == batchBody {
		most = int64(c.limits.Batch)
	}
	tooLarge := push.Errorf(push.KindTooLarge, string(codeRequestTooLarge), "a body has at most %d bytes here", most)
	if r.ContentLength > most {
		w.Header().Set("Connection", "close")
		return nil, tooLarge
	}
	from := http.MaxBytesReader(w, r.Body, most)
	var b []byte
	var err error
	if r.ContentLength >= 0 {
		b = make([]byte, r.ContentLength)
		_, err = io.ReadFull(from, b)
	} else {
		b, err = io.ReadAll(from)
	}
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, tooLarge
	case err != nil:
		return nil, push.Errorf(push.KindInvalid, string(codeMalformedJSON), "the body did not arrive as a whole")
	}
	return b, nil
}

// isJSON reports whether the body is JSON in UTF-8 and not encoded otherwise.
func isJSON(h http.Header) bool {
	if e := h.Get("Content-Encoding"); e != "" && e != "identity" {
		return false
	}
	t := h.Get("Content-Type")
	if t == "application/json" {
		return true
	}
	media, params, err := mime.ParseMediaType(t)
	if err != nil || media != "application/json" {
		return false
	}
	charset, given := params["charset"]
	return !given || charset == "utf-8" || charset == "UTF-8"
}
