/** The part of the plan's drawer in which a price agreed on with one company is written. */
import { Box } from "@stripe/ui-extension-sdk/ui";

import { collectionChoices, rhythmChoices, type OwnPrice, type OwnPriceErrors } from "../ownPrice";
import { Choice, Day, Entry } from "./fields";

export const OwnPriceFields = ({
  price,
  errors,
  isCurrencyOpen,
  onChange,
}: {
  price: OwnPrice;
  errors: OwnPriceErrors;
  /** Nothing is paid yet: the currency and the first day are still to be chosen. */
  isCurrencyOpen: boolean;
  onChange: (price: OwnPrice) => void;
}) => {
  const write = (part: Partial<OwnPrice>) => {
    onChange({ ...price, ...part });
  };
  return (
    <Box css={{ stack: "y", rowGap: "medium" }}>
      <Entry
        label={isCurrencyOpen ? "Amount" : `Amount in ${price.currency.toUpperCase()}`}
        description="For one of the plan, each time it is billed."
        value={price.amount}
        maxLength={16}
        error={errors.custom_amount_minor}
        onChange={(amount) => {
          write({ amount });
        }}
      />
      {isCurrencyOpen ? (
        <Entry
          label="Currency"
          value={price.currency.toUpperCase()}
          maxLength={3}
          error={errors.custom_currency}
          onChange={(currency) => {
            write({ currency: currency.toLowerCase() });
          }}
        />
      ) : null}
      <Choice
        label="Billed"
        value={price.rhythm}
        options={rhythmChoices}
        error={errors.custom_interval ?? errors.custom_interval_count}
        onChange={(rhythm) => {
          write({ rhythm });
        }}
      />
      <Choice
        label="How it is paid"
        value={price.collection}
        options={collectionChoices}
        error={errors.custom_collection_method}
        onChange={(collection) => {
          write({ collection });
        }}
      />
      {price.collection === "send_invoice" ? (
        <Entry
          label="Days until an invoice is due"
          type="number"
          value={price.daysUntilDue}
          error={errors.custom_days_until_due}
          onChange={(daysUntilDue) => {
            write({ daysUntilDue });
          }}
        />
      ) : null}
      {isCurrencyOpen ? (
        <Day
          label="First day"
          description="In UTC. Leave it empty to start as soon as it is confirmed."
          value={price.firstDay}
          error={errors.custom_starts_at}
          onChange={(firstDay) => {
            write({ firstDay });
          }}
        />
      ) : null}
      <Entry
        label="Name for finance"
        description="Shown beside the price in Stripe, not to the customer."
        value={price.name}
        maxLength={250}
        error={errors.custom_name}
        onChange={(name) => {
          write({ name });
        }}
      />
    </Box>
  );
};
