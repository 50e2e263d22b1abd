package center

import (
	"context"
	"errors"
	"net/http"

	"carillon/server/catalog"
	publicapi "carillon/server/center/api/public"
	"carillon/server/failpoint"
	"carillon/server/push"
	"carillon/server/saver"
)

// result is what became of one request: a message, or why there is none.
type result struct {
	message  *push.Message // as stored, or as sent; perhaps without its body
	settled  settled       // of an audience by tags
	repeated bool
	err      error
}

// PublishMessage serves POST /v1/messages.
func (o publicOps) PublishMessage(
	ctx context.Context, in publicapi.PublishMessageRequestObject,
) (publicapi.PublishMessageResponseObject, error) {
	a := callOf(ctx)
	product := a.principal.Product
	req, validateOnly, err := parsePublish(a.body, &o.limits, product.Limits.WithDefaults())
	if err == nil {
		req.key, err = keyOf(in.Params.IdempotencyKey)
	}
	if err != nil {
		o.metrics.message(outcomeRefused, o.codeOf(err))
		return nil, err
	}
	if validateOnly {
		body, err := o.validated(ctx, product, req)
		if err != nil {
			return nil, err
		}
		return published{status: http.StatusOK, body: body}, nil
	}
	var one [1]result
	o.publish(ctx, product, []*request{req}, one[:])
	res := &one[0]
	o.count(res)
	o.metrics.published(o.cfg.Clock.Now().Sub(a.start))
	if res.err != nil {
		return nil, res.err
	}
	return published{
		status: statusOf(res), id: res.message.ID, replayed: res.repeated,
		body: appendPublished(make([]byte, 0, 256), req, res),
	}, nil
}

// validated answers a request that is only to be judged: with an estimate, if it is for tags.
func (c *Center) validated(ctx context.Context, product *catalog.Product, req *request) ([]byte, error) {
	if req.tags == nil {
		return appendValidated(nil, req, settled{}, nil), nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.limits.StoreDeadline)
	defer cancel()
	is := settled{membership: atDelivery}
	if req.settles() {
		var err error
		if _, is, err = c.settle(ctx, product, req, c.limits.SmallAudience); err != nil {
			return nil, err
		}
	}
	e, ok, err := c.estimate(ctx, product, req)
	if err != nil {
		return nil, err
	}
	if !ok {
		return appendValidated(nil, req, is, nil), nil
	}
	return appendValidated(nil, req, is, &e), nil
}

// statusOf returns the status of a message that was accepted: 201 if it is stored.
func statusOf(r *result) int {
	if r.message.Persistent {
		return http.StatusCreated
	}
	return http.StatusAccepted
}

func (c *Center) count(r *result) {
	switch {
	case r.err != nil:
		c.metrics.message(outcomeRefused, c.codeOf(r.err))
	case r.repeated:
		c.metrics.message(outcomeRepeated, "")
	default:
		c.metrics.message(outcomeAccepted, "")
	}
}

func (c *Center) codeOf(err error) Code { return Code(c.problemOf(err).Code) }

// publish stores and delivers requests of one product, and fills in what became of each. Those that are nil are passed
// over. All that need the store go there in one call.
func (c *Center) publish(ctx context.Context, product *catalog.Product, reqs []*request, results []result) {
	ps := make([]*saver.Publication, len(reqs))
	small := c.limits.SmallAudience // of all of them together, as they lie in memory together
	for i, req := range reqs {
		if req == nil {
			continue
		}
		p, err := c.publication(ctx, product, req)
		if err == nil && req.settles() {
			p.Own, results[i].settled, err = c.settle(ctx, product, req, small)
			if results[i].settled.membership == atSend {
				p.Everyone, p.Filter = false, nil
				small -= len(p.Own)
			}
		}
		if err != nil {
			results[i].err = err
			continue
		}
		ps[i], results[i].message = p, p.Message
	}
	live := c.findLive(ctx, product.ID, reqs, results)
	stored := c.store(ctx, ps, results)
	failpoint.Hit(failpoint.CenterPublishStored)
	held := c.holdersOfStored(ctx, product.ID, ps, stored)
	c.settleRepeats(ctx, product.ID, reqs, results)
	for i, s := range stored {
		if r := &results[i]; s != nil && r.err == nil && !r.repeated && r.message.Persistent {
			c.notifyStored(product.ID, ps[i], s, held)
		}
	}
	c.deliverLive(product.ID, reqs, results, live)
	failpoint.Hit(failpoint.CenterPublishNotified)
}

// settleRepeats has the answers to repeats say how the audience was settled the first time.
func (c *Center) settleRepeats(ctx context.Context, product push.ProductID, reqs []*request, results []result) {
	for i, req := range reqs {
		if r := &results[i]; req != nil && r.err == nil && r.repeated && req.settles() {
			r.settled, r.err = c.settledBefore(ctx, product, r.message.ID)
		}
	}
}

// store hands those publications to the store that need it: the persistent ones, and those with an idempotency key. The
// result is as long as ps, nil where nothing was handed over.
//
// It is not given up when the sender goes away, since what was stored has to be told to the rooms all the same. Requests
// that come at the same time do not wait for each other here to go to the store together: that was tried with 128 callers, and gained
// nothing beyond the noise over the group commit that the store does itself.
func (c *Center) store(ctx context.Context, ps []*saver.Publication, results []result) []*saver.Published {
	stored := make([]*saver.Published, len(ps))
	need := make([]*saver.Publication, 0, len(ps))
	for i, p := range ps {
		if p != nil && results[i].err == nil && (p.Message.Persistent || p.Key != "") {
			need = append(need, p)
		}
	}
	if len(need) == 0 {
		return stored
	}
	ctx, cancel := c.finishing(ctx)
	defer cancel()
	answers := c.cfg.Saver.Publish(ctx, need)
	next := 0
	for i, p := range ps {
		if next == len(need) {
			break
		}
		if p != need[next] {
			continue
		}
		s := &answers[next]
		next++
		stored[i] = s
		if s.Err != nil {
			results[i].err = s.Err
			continue
		}
		results[i].message, results[i].repeated = s.Message, s.Repeated
	}
	return stored
}

// publication makes what the store is given of a request.
func (c *Center) publication(ctx context.Context, product *catalog.Product, req *request) (*saver.Publication, error) {
	id, err := c.cfg.IDs.Next(ctx)
	if err != nil {
		return nil, err
	}
	limits := product.Limits.WithDefaults()
	m := req.message
	m.ID = id
	m.Created = push.Milli(c.cfg.Clock.Now()) // the store says better, where it is asked
	p := &saver.Publication{
		Product: product.ID, Shards: product.Shards, Limits: limits, Message: &m, TTL: req.ttl, Key: req.key,
		Own: req.targets, Everyone: req.inCommon(), Found: req.settles(),
	}
	if p.Everyone {
		p.Filter = req.filter()
	}
	if p.TTL == 0 {
		p.TTL = limits.TTL
	}
	if p.Key != "" {
		p.Digest = req.digest()
	}
	return p, nil
}

// unavailable returns err with the code that tells a sender which part failed, unless it has a better one.
func unavailable(code Code, err error) error {
	var e *push.Error
	if errors.As(err, &e) && e.Kind == push.KindClosed {
		return err
	}
	return &push.Error{Kind: push.KindUnavailable, Code: string(code), Err: err}
}
