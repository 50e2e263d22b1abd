package center

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"carillon/server/catalog"
	publicapi "carillon/server/center/api/public"
)

// PublishBatch serves POST /v1/messages/batch.
func (o publicOps) PublishBatch(
	ctx context.Context, _ publicapi.PublishBatchRequestObject,
) (publicapi.PublishBatchResponseObject, error) {
	a := callOf(ctx)
	product := a.principal.Product
	items, validateOnly, err := parseBatch(a.body, &o.limits, product.Limits.WithDefaults())
	if err != nil {
		return nil, err
	}
	reqs := make([]*request, len(items))
	results := make([]result, len(items))
	for i, it := range items {
		reqs[i], results[i].err = it.request, it.err
	}
	if validateOnly {
		o.settleAll(ctx, product, reqs, results)
	} else {
		o.publish(ctx, product, reqs, results)
		o.countBatch(a, results)
		o.metrics.published(o.cfg.Clock.Now().Sub(a.start))
	}
	return batchPublished(o.appendBatch(make([]byte, 0, 256*len(reqs)), reqs, results, validateOnly)), nil
}

// settleAll finds out when the audiences of a batch that is only to be judged would be settled, as publish does.
func (c *Center) settleAll(ctx context.Context, product *catalog.Product, reqs []*request, results []result) {
	small := c.limits.SmallAudience
	for i, req := range reqs {
		if req != nil {
			_, results[i].settled, results[i].err = c.settle(ctx, product, req, small)
			small -= results[i].settled.users
		}
	}
}

// countBatch counts what became of the messages, and logs the first failure that is not the sender's: the others most
// likely have the same cause.
func (c *Center) countBatch(a *call, results []result) {
	var first error
	failed := 0
	for i := range results {
		c.count(&results[i])
		if err := results[i].err; err != nil && c.problemOf(err).Status >= http.StatusInternalServerError {
			failed++
			first = cmp.Or(first, err)
		}
	}
	if first != nil {
		p := c.problemOf(first)
		c.logFailure(a, &p, first, failed)
	}
}

// batchPublished is the body of the answer to a batch.
type batchPublished []byte

// VisitPublishBatchResponse writes the answer.
func (b batchPublished) VisitPublishBatchResponse(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_, err := w.Write(b)
	return err
}

// appendBatch appends the schema BatchResponse.
func (c *Center) appendBatch(dst []byte, reqs []*request, results []result, validateOnly bool) []byte {
	dst = append(dst, `{"results":[`...)
	for i := range results {
		if i > 0 {
			dst = append(dst, ',')
		}
		switch r := &results[i]; {
		case r.err != nil:
			dst = c.appendRefused(dst, r.err)
		case validateOnly:
			dst = appendValidated(append(dst, `{"status":200,"validated":`...), reqs[i], r.settled, nil)
			dst = append(dst, '}')
		default:
			dst = strconv.AppendInt(append(dst, `{"status":`...), int64(statusOf(r)), 10)
			if r.repeated {
				dst = append(dst, `,"replayed":true`...)
			}
			dst = appendPublished(append(dst, `,"message":`...), reqs[i], r)
			dst = append(dst, '}')
		}
	}
	return append(dst, `]}`...)
}

func (c *Center) appendRefused(dst []byte, err error) []byte {
	p := c.problemOf(err)
	b, _ := json.Marshal(p) // strings and numbers: it cannot fail
	dst = strconv.AppendInt(append(dst, `{"status":`...), int64(p.Status), 10)
	return append(append(append(dst, `,"problem":`...), b...), '}')
}
